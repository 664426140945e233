// A program over the client that oapi-codegen makes: submit, wait, say the picture's size and bytes.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"safelight/clients/safelight"
)

func made(ctx context.Context, client *safelight.ClientWithResponses, request safelight.JobRequest, key string) (*safelight.JobView, error) {
	accepted, err := client.CreateJobWithResponse(ctx, &safelight.CreateJobParams{IdempotencyKey: &key}, request)
	if err != nil {
		return nil, err
	}
	job := accepted.JSON202
	for wait := float32(20); job != nil && !job.Ended; {
		found, err := client.GetJobWithResponse(ctx, job.Id, &safelight.GetJobParams{Wait: &wait})
		if err != nil {
			return nil, err
		}
		job = found.JSON200
	}
	if job == nil || job.State != safelight.JobStateSucceeded {
		return nil, fmt.Errorf("no picture: %s", accepted.Status())
	}
	return job, nil
}

func main() {
	ctx, url, token := context.Background(), os.Args[1], os.Args[2]
	bearer := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
	client, err := safelight.NewClientWithResponses(url, safelight.WithRequestEditorFn(bearer))
	if err != nil {
		log.Fatal(err)
	}
	size, quality := "1536x1024", safelight.JobRequestQualityLow
	request := safelight.JobRequest{Prompt: "a lighthouse at dusk", Size: &size, Quality: &quality}
	job, err := made(ctx, client, request, "a-program-in-go")
	if err != nil {
		log.Fatal(err)
	}
	output := job.Outputs[0]
	answer, err := http.Get(output.Url)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	bytes, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %dx%d %d\n", job.Id, output.Width, output.Height, len(bytes))

	count := 99
	refused, err := client.CreateJobWithResponse(ctx, nil, safelight.JobRequest{Prompt: "a thing", Count: &count})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(refused.ApplicationproblemJSON400.Code)
}

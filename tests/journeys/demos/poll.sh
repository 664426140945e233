curl https://gptimage2.ai/api/generate/{jobId} \
  -H "Authorization: Bearer $GPTIMAGE2_API_KEY"

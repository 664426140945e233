curl https://gptimage2.ai/api/generate \
  -H "Authorization: Bearer $GPTIMAGE2_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "mode": "image-to-image",
    "prompt": "Keep the product from ref 1, use the color palette from ref 2.",
    "imageUrls": [
      "https://cdn.example.com/subject.png",
      "https://cdn.example.com/palette.png"
    ],
    "ratio": "1:1",
    "count": 1
  }'

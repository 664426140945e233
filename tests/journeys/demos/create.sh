curl https://gptimage2.ai/api/generate \
  -H "Authorization: Bearer $GPTIMAGE2_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "mode": "text-to-image",
    "prompt": "A clean studio product photo of a ceramic espresso cup",
    "ratio": "1:1",
    "count": 1,
    "style": "studio-product"
  }'

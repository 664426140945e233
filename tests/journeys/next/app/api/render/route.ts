// app/api/render/route.ts
import { NextResponse } from "next/server";

export async function POST(req: Request) {
  const { prompt } = (await req.json()) as { prompt?: string };
  if (!prompt?.trim()) {
    return NextResponse.json({ error: "prompt_required" }, { status: 400 });
  }
  try {
    const upstream = await fetch("https://gptimage2.ai/api/generate", {
      method: "POST",
      headers: {
        Authorization: `Bearer ${process.env.GPTIMAGE2_API_KEY}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({
        mode: "text-to-image",
        prompt,
        ratio: "1:1",
        count: 1,
      }),
    });
    const result = await upstream.json();
    return NextResponse.json(
      result,
      {
        status: upstream.status,
        headers: { "Cache-Control": "no-store" },
      },
    );
  } catch (err) {
    return NextResponse.json({ error: "image_generation_failed" }, { status: 500 });
  }
}

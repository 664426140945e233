"use strict";
/* Shows openapi.json. The viewer reads OpenAPI 3.0, the document is 3.1: null types are respelled. */
function older(node) {
  if (Array.isArray(node)) return node.map(older);
  if (node === null || typeof node !== "object") return node;
  const copy = Object.fromEntries(Object.entries(node).map(([name, value]) => [name, older(value)]));
  if (Array.isArray(copy.anyOf) && copy.anyOf.some((member) => member.type === "null")) {
    const rest = copy.anyOf.filter((member) => member.type !== "null");
    delete copy.anyOf;
    if (rest.length === 1) Object.assign(copy, rest[0].$ref ? { allOf: rest } : rest[0]);
    else copy.anyOf = rest;
    copy.nullable = true;
  }
  if ("const" in copy) { copy.enum = [copy.const]; delete copy.const; }
  return copy;
}
fetch("openapi.json").then((answer) => answer.json()).then((spec) => {
  SwaggerUIBundle({
    spec: { ...older(spec), openapi: "3.0.3" },
    dom_id: "#calls",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis],
    validatorUrl: null,
  });
});

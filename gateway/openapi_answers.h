#pragma once

namespace spillway {

// What the server answers, and a chat's message, as the `components` of /openapi.json.
inline constexpr char kAnswerSchemas[] = R"({
"Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
  "required": ["message", "type", "param", "code"], "properties": {"message": {"type": "string", "minLength": 1},
  "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
  "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}},
"Message": {"type": "object", "required": ["role", "content"], "properties": {
  "role": {"enum": ["system", "developer", "user", "assistant"]},
  "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object", "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}}]}}},
"Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"], "properties": {
  "prompt_tokens": {"type": "integer", "minimum": 1}, "completion_tokens": {"type": "integer", "minimum": 0},
  "total_tokens": {"type": "integer", "minimum": 1}, "prompt_tokens_details": {"type": "object",
    "required": ["cached_tokens"], "properties": {"cached_tokens": {"type": "integer", "minimum": 0}}}}},
"Completion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
  "id": {"type": "string", "pattern": "^cmpl-"}, "object": {"const": "text_completion"},
  "created": {"type": "integer"}, "model": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"},
  "choices": {"type": "array", "minItems": 1, "items": {"type": "object",
    "required": ["index", "text", "logprobs", "finish_reason"], "properties": {"index": {"type": "integer"},
    "text": {"type": "string"}, "finish_reason": {"enum": ["stop", "length"]}}}},
  "timings": {"type": "object", "additionalProperties": {"type": "number"}}}},
"ChatCompletion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
  "properties": {"id": {"type": "string", "pattern": "^chatcmpl-"}, "object": {"const": "chat.completion"},
  "created": {"type": "integer"}, "model": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"},
  "choices": {"type": "array", "minItems": 1, "items": {"type": "object",
    "required": ["index", "message", "logprobs", "finish_reason"], "properties": {"index": {"type": "integer"},
    "message": {"type": "object", "required": ["role", "content"], "properties": {"role": {"const": "assistant"},
      "content": {"type": "string"}}}, "finish_reason": {"enum": ["stop", "length"]}}}},
  "timings": {"type": "object", "additionalProperties": {"type": "number"}}}},
"Model": {"type": "object", "required": ["id", "object", "created", "owned_by", "max_model_len"], "properties": {
  "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
  "owned_by": {"type": "string"}, "max_model_len": {"type": "integer", "minimum": 1}}},
"ModelList": {"type": "object", "required": ["object", "data"], "properties": {"object": {"const": "list"},
  "data": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Model"}}}},
"Tokens": {"type": "object", "required": ["tokens", "count", "max_model_len"], "properties": {
  "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}}, "count": {"type": "integer", "minimum": 0},
  "max_model_len": {"type": "integer", "minimum": 1}}},
"Text": {"type": "object", "required": ["prompt", "content"], "properties": {"prompt": {"type": "string"},
  "content": {"type": "string"}}},
"Event": {"type": "object", "required": ["data"], "description": "one event of the stream", "properties": {
  "data": {"type": "string", "description": "a chunk as JSON; an error, then the last event; or [DONE]"}}},
"Version": {"type": "object", "required": ["version"], "properties": {"version": {"type": "string", "minLength": 1}}},
"Health": {"type": "object", "required": ["status"], "additionalProperties": false, "properties": {
  "status": {"enum": ["ok", "draining", "unavailable"]}, "code": {"type": "string"}, "reason": {"type": "string"},
  "reasons": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
  "degraded": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}}}
})";

}  // namespace spillway

//! What a member's name says about its value. A name that is not listed is not known.
//!
//! The lists are the union of the vendors' names. A name is listed as text only where no vendor
//! reads anything else from it at that place.

/// A member of the body itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyMember {
    /// Text, messages, items, parts.
    Entries,
    /// Texts that are each continued, or a stored prompt.
    Prompt,
    /// How many answers.
    Answers,
    /// What the answer is made of.
    Modalities,
    /// A voice for the answer, or what is to be heard.
    Audio,
    /// Asks for output other than text.
    OtherOutput,
    Tools,
    /// The client's functions in the old manner.
    Functions,
    /// Asks the vendor to look something up, or to run something.
    ServerTool,
    /// Settings among which some of the above can be.
    Settings,
    /// More members of the body.
    Body,
    /// Chooses among prices.
    Rates,
    Cache,
    /// A setting: whatever is in it is text at most.
    Setting,
    Unknown,
}

/// A member of a message, of an item or of a part of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryMember {
    Type,
    Id,
    /// Entries, without which an element with an id is no message of its own.
    Role,
    /// The same, but whatever is in it is text.
    Function,
    /// What is stored elsewhere, when it is not here.
    Encrypted,
    /// What is text in one type of entry alone.
    Input,
    Data,
    /// Text, or entries.
    Entries,
    /// Whatever is in it is text.
    Json,
    Cache,
    Unknown,
}

/// A member of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToolMember {
    Type,
    /// Whatever is in it is text.
    Json,
    Cache,
    Unknown,
}

/// What the type of an entry says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryType {
    /// Text, or made of entries.
    Text,
    /// A call whose `input` is text.
    Call,
    /// Its `data` is text.
    Redacted,
    /// Text that may be stored elsewhere.
    Reasoning,
    /// Something else.
    Unknown,
}

/// Names under which a number of answers is asked for.
const ANSWERS: [&str; 9] = [
    "n",
    "best_of",
    "candidateCount",
    "candidate_count",
    "sampleCount",
    "numResults",
    "num_generations",
    "num_completions",
    "num_return_sequences",
];

impl BodyMember {
    pub(super) fn of(name: &str) -> BodyMember {
        match name {
            "messages" | "content" | "contents" | "input" | "inputs" | "system" | "systemInstruction"
            | "system_instruction" | "instructions" | "suffix" | "preamble" | "chat_history" | "message"
            | "text" | "texts" | "title" | "query" | "documents" => BodyMember::Entries,
            "prompt" => BodyMember::Prompt,
            "modalities" | "responseModalities" | "response_modalities" | "output_modalities" => {
                BodyMember::Modalities
            }
            "audio" => BodyMember::Audio,
            "voice" | "speechConfig" | "speech_config" | "imageConfig" | "image_config" | "size"
            | "aspect_ratio" => BodyMember::OtherOutput,
            "tools" => BodyMember::Tools,
            "functions" => BodyMember::Functions,
            "mcp_servers" | "plugins" | "connectors" => BodyMember::ServerTool,
            "generationConfig" | "generation_config" | "inferenceConfig" | "inference_config"
            | "toolConfig" | "tool_config" | "parameters" | "options" => BodyMember::Settings,
            "extra_body" | "additionalModelRequestFields" => BodyMember::Body,
            // What is predicted and does not come is input at the price of output.
            "service_tier" | "serviceTier" | "speed" | "inference_geo" | "performanceConfig" | "provider"
            | "models" | "route" | "prediction" => BodyMember::Rates,
            "cache_control" => BodyMember::Cache,
            _ if is_setting(name) => BodyMember::Setting,
            _ => BodyMember::of_any_spelling(name),
        }
    }

    /// Names that decide about numbers and switches are read as by a parser that is loose about
    /// case: members with such values are otherwise settings, whatever their name.
    fn of_any_spelling(name: &str) -> BodyMember {
        if ANSWERS.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            BodyMember::Answers
        } else if speaks_of_search(name) {
            BodyMember::ServerTool
        } else {
            BodyMember::Unknown
        }
    }
}

/// Whether whatever such a member of the body holds is text at most.
fn is_setting(name: &str) -> bool {
    matches!(
        name,
        "model"
            | "user"
            | "user_id"
            | "metadata"
            | "labels"
            | "requestMetadata"
            | "store"
            | "stream"
            | "stream_options"
            | "stop"
            | "stop_sequences"
            | "stopSequences"
            | "stop_token_ids"
            | "logit_bias"
            | "bad_words"
            | "response_format"
            | "output_format"
            | "output_config"
            | "response_schema"
            | "format"
            | "grammar"
            | "tool_choice"
            | "toolChoice"
            | "function_call"
            | "reasoning"
            | "reasoning_effort"
            | "reasoning_format"
            | "thinking"
            | "think"
            | "verbosity"
            | "prompt_mode"
            | "prompt_cache_key"
            | "prompt_cache_retention"
            | "safety_identifier"
            | "request_id"
            | "encoding_format"
            | "embedding_types"
            | "output_dtype"
            | "input_type"
            | "task_type"
            | "taskType"
            | "task"
            | "truncation"
            | "truncate"
            | "transforms"
            | "include"
            | "safety_settings"
            | "safetySettings"
            | "safety_mode"
            | "citation_options"
            | "anthropic_version"
            | "anthropic_beta"
            | "betas"
            | "chat_template_kwargs"
            | "guided_json"
            | "guided_choice"
            | "guided_regex"
            | "guided_grammar"
            | "language"
            | "keep_alive"
            | "template"
            | "additionalModelResponseFieldPaths"
            | "usage"
    )
}

/// `web_search_options`, `search_parameters`, `enable_search` and their like.
fn speaks_of_search(name: &str) -> bool {
    const SEARCH: &[u8] = b"search";
    name.as_bytes().windows(SEARCH.len()).any(|part| part.eq_ignore_ascii_case(SEARCH))
}

impl EntryMember {
    pub(super) fn of(name: &str) -> EntryMember {
        match name {
            "type" => EntryMember::Type,
            "id" => EntryMember::Id,
            "role" | "functionCall" | "functionResponse" => EntryMember::Role,
            "encrypted_content" => EntryMember::Encrypted,
            "input" => EntryMember::Input,
            "data" => EntryMember::Data,
            "content" | "text" | "parts" | "contents" | "output" | "summary" | "thinking" | "refusal"
            | "tool_calls" | "title" | "filename" | "name" | "arguments" | "call_id" | "tool_call_id"
            | "tool_use_id" | "toolUseId" | "toolResult" | "tool_result" | "status" | "is_error"
            | "signature" | "reasoning" | "reasoning_content" | "thought" | "thoughtSignature"
            | "thought_signature" | "phase" | "prefix" | "partial" | "weight" | "index" | "tool_name"
            | "tool_plan" | "detail" | "verbosity" | "namespace" => EntryMember::Entries,
            "function" | "custom" => EntryMember::Function,
            "function_call" | "args" | "response" | "json" | "toolUse" | "citations" | "annotations"
            | "logprobs" | "reasoning_details" | "extra_content" | "caller" | "format" => EntryMember::Json,
            "cache_control" | "cachePoint" => EntryMember::Cache,
            _ => EntryMember::Unknown,
        }
    }
}

impl ToolMember {
    pub(super) fn of(name: &str) -> ToolMember {
        match name {
            "type" => ToolMember::Type,
            "function"
            | "custom"
            | "name"
            | "description"
            | "parameters"
            | "input_schema"
            | "strict"
            | "format"
            | "functionDeclarations"
            | "function_declarations"
            | "toolSpec"
            | "defer_loading"
            | "input_examples"
            | "allowed_callers"
            | "eager_input_streaming"
            | "parameter_definitions" => ToolMember::Json,
            "cache_control" | "cachePoint" => ToolMember::Cache,
            _ => ToolMember::Unknown,
        }
    }
}

impl EntryType {
    pub(super) fn of(name: &str) -> EntryType {
        match name {
            "text"
            | "input_text"
            | "output_text"
            | "summary_text"
            | "reasoning_text"
            | "refusal"
            | "message"
            | "tool_result"
            | "thinking"
            | "function"
            | "custom"
            | "function_call"
            | "function_call_output"
            | "custom_tool_call_output" => EntryType::Text,
            "tool_use" | "custom_tool_call" => EntryType::Call,
            "redacted_thinking" => EntryType::Redacted,
            "reasoning" => EntryType::Reasoning,
            _ => EntryType::Unknown,
        }
    }

    pub(super) fn bit(self) -> u8 {
        match self {
            EntryType::Text => 1,
            EntryType::Call => 2,
            EntryType::Redacted => 4,
            EntryType::Reasoning => 8,
            EntryType::Unknown => 16,
        }
    }
}

/// Whether the client runs tools of this type.
pub(super) fn is_clients_tool(kind: &str) -> bool {
    matches!(kind, "function" | "custom")
}

/// Whether calls with this tier of service, speed or place are charged at the usual rates, or
/// below them.
///
/// `auto` is what a vendor takes who is told nothing: by the settings of the operator's own account,
/// at whose rates the operator prices the model. Only what a caller chooses besides is refused.
pub(super) fn has_usual_rates(choice: &str) -> bool {
    matches!(
        choice,
        "auto" | "default" | "standard" | "standard_only" | "on_demand" | "flex" | "global" | "normal"
    )
}

/// Whether this time in a cache is the one that is priced.
pub(super) fn is_usual_ttl(ttl: &str) -> bool {
    ttl == "5m"
}

/// Whether it is the name of text as output.
pub(super) fn is_text_modality(name: &str) -> bool {
    name.eq_ignore_ascii_case("text")
}

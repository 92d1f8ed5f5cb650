//! What the operator or the catalogue says about one OpenAI-compatible vendor.

use serde::Deserialize;
use sluice_plugin::adapter::{Edit, Moved, Placed, PluginError};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    output_limit: OutputLimit,
    edits: Vec<Quirk>,
}

/// The member that bounds the output.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum OutputLimit {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

/// One change of the body.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Quirk {
    Remove(String),
    Set { at: String, value: String },
    Insert { at: String, value: String },
    Move { from: String, to: String },
}

impl Config {
    pub fn parse(json: &str) -> Result<Config, PluginError> {
        let config: Config =
            serde_json::from_str(json).map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        for quirk in &config.edits {
            quirk.check()?;
        }
        Ok(config)
    }

    pub fn limit_pointer(&self) -> String {
        match self.output_limit {
            OutputLimit::MaxTokens => "/max_tokens".into(),
            OutputLimit::MaxCompletionTokens => "/max_completion_tokens".into(),
        }
    }

    pub fn edits(&self) -> impl Iterator<Item = Edit> + '_ {
        self.edits.iter().map(Quirk::edit)
    }
}

impl Quirk {
    fn check(&self) -> Result<(), PluginError> {
        if let Quirk::Set { at, value } | Quirk::Insert { at, value } = self {
            serde_json::from_str::<serde::de::IgnoredAny>(value).map_err(|error| {
                PluginError::InvalidConfig(format!("edits: the value for {at} is not JSON: {error}"))
            })?;
        }
        Ok(())
    }

    fn edit(&self) -> Edit {
        match self {
            Quirk::Remove(at) => Edit::Remove(at.clone()),
            Quirk::Set { at, value } => Edit::Set(Placed { at: at.clone(), json: value.clone() }),
            Quirk::Insert { at, value } => Edit::Insert(Placed { at: at.clone(), json: value.clone() }),
            Quirk::Move { from, to } => Edit::Move(Moved { from: from.clone(), to: to.clone() }),
        }
    }
}

/// Reads one configuration of each form and refuses a broken one.
pub fn self_test() -> Result<(), String> {
    let good = r#"{"output_limit":"max_completion_tokens","edits":[{"remove":"/a"},{"move":{"from":"/b","to":"/c"}},
        {"set":{"at":"/d","value":"1"}},{"insert":{"at":"/e","value":"{}"}}]}"#;
    let config = Config::parse(good).map_err(|_| "a good configuration is refused")?;
    if config.edits().count() != 4 || config.limit_pointer() != "/max_completion_tokens" {
        return Err("a configuration is misread".into());
    }
    match Config::parse(r#"{"edits":[{"set":{"at":"/d","value":"{"}}]}"#) {
        Ok(_) => Err("a value that is not JSON is taken".into()),
        Err(_) => Ok(()),
    }
}

//! What the operator says about Anthropic: the default limit, the version of the API, its betas.

use serde::Deserialize;
use sluice_plugin::adapter::PluginError;

/// Versions of the API that this adapter speaks. Another one may take other members and answer in
/// another form: `2026-10-21` refuses `temperature`, `top_p` and `top_k`.
const VERSIONS: [&str; 1] = ["2023-06-01"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Tokens of output at most where the client names no limit.
    pub default_max_tokens: u64,
    /// One of [`VERSIONS`].
    pub version: String,
    beta: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config { default_max_tokens: 4096, version: VERSIONS[0].into(), beta: Vec::new() }
    }
}

impl Config {
    /// The host has checked `json` against the schema, bounds and patterns included.
    pub fn parse(json: &str) -> Result<Config, PluginError> {
        let config: Config =
            serde_json::from_str(json).map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        if VERSIONS.contains(&config.version.as_str()) {
            return Ok(config);
        }
        let known = VERSIONS.join(", ");
        Err(PluginError::InvalidConfig(format!(
            "version: this adapter does not speak {:?} of Anthropic's API; wanted one of: {known}",
            config.version
        )))
    }

    /// The value of `anthropic-beta`: the operator's names, then the client's, each once.
    pub fn betas(&self, of_client: Option<&str>) -> Option<String> {
        let asked = of_client.unwrap_or_default().split(',').map(str::trim);
        let mut names: Vec<&str> = Vec::new();
        for name in self.beta.iter().map(String::as_str).chain(asked) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() { None } else { Some(names.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = Config::parse("{}").unwrap();
        assert_eq!((config.default_max_tokens, config.version.as_str()), (4096, "2023-06-01"));
        assert_eq!(config.betas(None), None);
        assert!(Config::parse(r#"{"maximum":1}"#).is_err());
    }

    #[test]
    fn a_version_that_the_adapter_does_not_speak_is_refused() {
        for version in VERSIONS {
            assert!(Config::parse(&format!(r#"{{"version":"{version}"}}"#)).is_ok(), "{version}");
        }
        for version in ["2023-01-01", "2026-10-21", ""] {
            let parsed = Config::parse(&format!(r#"{{"version":"{version}"}}"#));
            let Err(PluginError::InvalidConfig(text)) = parsed else { panic!("{version} is taken") };
            assert!(text.contains(&format!("{version:?}")) && text.contains("2023-06-01"), "{text}");
        }
    }

    #[test]
    fn betas_of_operator_and_client_are_joined_without_doubles() {
        let config = Config::parse(r#"{"beta":["a","b"]}"#).unwrap();
        assert_eq!(config.betas(Some("c, b,,")).as_deref(), Some("a,b,c"));
        assert_eq!(config.betas(None).as_deref(), Some("a,b"));
    }
}

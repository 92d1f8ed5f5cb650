//! Makes a component of a core module, stamps it with where it comes from, and seals it.

use serde::Serialize;
use sluice_runtime::{STAMP_NAME, seal};
use wit_component::{ComponentEncoder, metadata};

/// What a component says about itself. No time and no place: the same sources give the same bytes.
#[derive(Debug, Serialize)]
pub(super) struct Stamp<'a> {
    package: &'a str,
    version: &'a str,
    source_sha256: &'a str,
    builder: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ComponentError {
    #[error(
        "the module has no component type in it: the package does not use the Sluice SDK (nor wit-bindgen)"
    )]
    NoComponentType,
    #[error("encoding the component")]
    Encode { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("writing the stamp")]
    Stamp { source: serde_json::Error },
}

impl<'a> Stamp<'a> {
    pub(super) fn new(package: &'a str, version: &'a str, source_sha256: &'a str) -> Stamp<'a> {
        Stamp { package, version, source_sha256, builder: concat!("sluice ", env!("CARGO_PKG_VERSION")) }
    }
}

/// The component of `module`, validated, with its stamp, a JSON object, and its seal.
pub(super) fn encode(module: &[u8], stamp: &Stamp<'_>) -> Result<Vec<u8>, ComponentError> {
    let (typed, _) = metadata::decode(module).map_err(encode_error)?;
    if typed.is_none() {
        return Err(ComponentError::NoComponentType);
    }
    let mut encoder = ComponentEncoder::default();
    let encoder = encoder.validate(true).module(module).map_err(encode_error)?;
    let mut component = encoder.encode().map_err(encode_error)?;
    let stamp = serde_json::to_vec(stamp).map_err(|source| ComponentError::Stamp { source })?;
    append_custom_section(&mut component, STAMP_NAME, &stamp);
    seal(&mut component);
    Ok(component)
}

/// Custom sections may stand anywhere in a component; the end needs no parsing.
fn append_custom_section(component: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut content = leb128(name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    component.push(0);
    component.extend_from_slice(&leb128(content.len()));
    component.extend_from_slice(&content);
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn encode_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ComponentError {
    ComponentError::Encode { source: source.into() }
}

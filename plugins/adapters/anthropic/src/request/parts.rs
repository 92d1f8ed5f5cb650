//! The content of a message: a string or parts, as blocks.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sluice_plugin::adapter::PluginError;

use crate::json::{Kind, Node, Object, Text, is_blank, unserved};
use crate::wire::{Block, Source};

/// Whose content it is: not everybody may show images.
#[derive(Clone, Copy)]
pub enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

/// `detail` is a hint, and Anthropic takes none.
#[derive(Deserialize)]
struct ImageUrl<'a> {
    #[serde(borrow)]
    url: Text<'a>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default, borrow)]
    file_data: Option<Text<'a>>,
    #[serde(default, borrow)]
    filename: Option<&'a RawValue>,
    #[serde(default)]
    file_id: Option<IgnoredAny>,
}

pub fn map<'a>(content: &Node<'a>, speaker: Speaker) -> Result<Vec<Block<'a>>, PluginError> {
    match content.kind() {
        Kind::Text => Ok(text(content, None)?.into_iter().collect()),
        Kind::List => {
            let parts = content.objects()?.into_iter();
            let blocks: Result<Vec<_>, _> = parts.map(|part| map_part(part, speaker)).collect();
            Ok(blocks?.into_iter().flatten().collect())
        }
        Kind::Object | Kind::Plain => Err(content.unserved("a string or a list of parts is wanted")),
    }
}

/// None for text that is blank, which Anthropic refuses.
pub fn text<'a>(
    text: &Node<'a>,
    cache_control: Option<&'a RawValue>,
) -> Result<Option<Block<'a>>, PluginError> {
    if text.kind() != Kind::Text {
        return Err(text.unserved("a string is wanted"));
    }
    Ok((!is_blank(text.raw)).then_some(Block::Text { text: text.raw, cache_control }))
}

fn map_part(mut part: Object<'_>, speaker: Speaker) -> Result<Option<Block<'_>>, PluginError> {
    let kind = part.want("type")?.text()?;
    let cache_control = part.take_raw("cache_control");
    let block = match (kind.as_ref(), speaker) {
        ("text", _) => text(&part.want("text")?, cache_control)?,
        ("refusal", Speaker::Assistant) => text(&part.want("refusal")?, cache_control)?,
        ("image_url", Speaker::User | Speaker::Tool) => {
            Some(Block::Image { source: image(&mut part)?, cache_control })
        }
        ("file", Speaker::User | Speaker::Tool) => Some(document(&mut part, cache_control)?),
        ("input_audio", _) => return Err(unserved(part.path(), "Anthropic takes no audio; send its text")),
        (_, Speaker::User | Speaker::Tool) => {
            return Err(unserved(part.path(), "a part of type text, image_url or file is wanted"));
        }
        (_, Speaker::System | Speaker::Assistant) => {
            return Err(unserved(part.path(), "only text is taken here; send other parts as user"));
        }
    };
    part.finish(&["annotations"])?;
    Ok(block)
}

fn image<'a>(part: &mut Object<'a>) -> Result<Source<'a>, PluginError> {
    let node = part.want("image_url")?;
    let address = match node.kind() {
        Kind::Object => node.read::<ImageUrl<'a>>("an object with url is wanted")?.url.0,
        Kind::Text | Kind::List | Kind::Plain => node.text()?,
    };
    if address.starts_with("https://") || address.starts_with("http://") {
        return Ok(Source::Url { url: address });
    }
    let (media_type, data) = data_url(address)
        .ok_or_else(|| node.unserved("a data: URL in base64 or an http(s) URL is wanted"))?;
    // Often sent, and no media type: Anthropic refuses it.
    let media_type = if media_type == "image/jpg" { "image/jpeg".into() } else { media_type };
    Ok(Source::Base64 { media_type, data })
}

fn document<'a>(
    part: &mut Object<'a>,
    cache_control: Option<&'a RawValue>,
) -> Result<Block<'a>, PluginError> {
    let node = part.want("file")?;
    let file: File<'a> = node.read("an object with file_data is wanted")?;
    if file.file_id.is_some() {
        return Err(node.unserved("file_id is OpenAI's; send the file itself as file_data"));
    }
    match file.file_data.and_then(|url| data_url(url.0)) {
        Some((media_type, data)) if media_type == "application/pdf" => {
            let source = Source::Base64 { media_type, data };
            Ok(Block::Document { source, title: file.filename, cache_control })
        }
        Some(_) | None => {
            Err(node
                .unserved("file_data is wanted as data:application/pdf;base64,…; send other files as text"))
        }
    }
}

/// Media type and base64 of a `data:` URL; the data is not copied where the URL was not.
fn data_url(url: Cow<'_, str>) -> Option<(String, Cow<'_, str>)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?.split(';').next()?.to_ascii_lowercase();
    let start = url.len() - data.len();
    let data = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[start..]),
        Cow::Owned(url) => Cow::Owned(url[start..].into()),
    };
    Some((media_type, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_has_a_type_and_base64() {
        let read =
            |url: &'static str| data_url(Cow::Borrowed(url)).map(|(media, data)| (media, data.into_owned()));
        assert_eq!(read("data:Image/PNG;base64,QUJD"), Some(("image/png".into(), "QUJD".into())));
        assert_eq!(read("data:image/png;charset=x;base64,QQ=="), Some(("image/png".into(), "QQ==".into())));
        for none in ["", "QUJD", "data:image/png,QUJD", "data:image/png;base64", "ftp://a"] {
            assert_eq!(read(none), None, "{none}");
        }
        assert!(matches!(data_url(Cow::Borrowed("data:a;base64,b")), Some((_, Cow::Borrowed("b")))));
    }
}

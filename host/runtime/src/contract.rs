//! The contract's text, to explain how a component differs from it.

use wit_parser::{Resolve, SourceMap};

use crate::fault::shorten;
use crate::plugin::Kind;

/// The files of the package, by name.
const FILES: [(&str, &str); 8] = [
    ("bid-strategy.wit", include_str!("../../../wit/bid-strategy.wit")),
    ("consulting-policy.wit", include_str!("../../../wit/consulting-policy.wit")),
    ("gpu-inventory.wit", include_str!("../../../wit/gpu-inventory.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("learning-policy.wit", include_str!("../../../wit/learning-policy.wit")),
    ("provider-adapter.wit", include_str!("../../../wit/provider-adapter.wit")),
    ("routing-policy.wit", include_str!("../../../wit/routing-policy.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
];

/// How a component differs from its world, in words; none where this finds no difference.
pub(crate) fn difference(kind: Kind, component: &[u8]) -> Option<String> {
    let mut files = SourceMap::new();
    for (name, text) in FILES {
        files.push_str(name, text);
    }
    let group = files.parse().ok()?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(group).ok()?;
    let world = resolve.select_world(&[package], Some(kind.name())).ok()?;
    let error = wit_component::targets(&resolve, world, component, false).err()?;
    let mut text = format!("{error:#}");
    shorten(&mut text);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_one_package_with_all_worlds() {
        for kind in Kind::ALL {
            // An empty component: the text names what is missing, which shows that the world was found.
            let text = difference(kind, b"\0asm\x0d\0\x01\0").unwrap();
            assert!(text.contains("lifecycle"), "{text}");
        }
    }
}

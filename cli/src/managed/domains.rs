//! Names of networks that are also names of domains: there, `alpha.com` is a member, and no web site.

use crate::stdio;

/// Top-level domains that people use, besides those of two letters, which are countries.
const DOMAINS: [&str; 32] = [
    "academy", "agency", "app", "arpa", "art", "biz", "blog", "cloud", "club", "com", "dev", "edu", "email",
    "gov", "group", "info", "int", "live", "mil", "mobi", "name", "net", "news", "online", "org", "page",
    "pro", "shop", "site", "store", "tech", "xyz",
];

/// Names that resolvers and local networks use themselves.
const LOCAL: [&str; 13] = [
    "alt",
    "corp",
    "example",
    "fritz",
    "home",
    "internal",
    "invalid",
    "lan",
    "local",
    "localhost",
    "onion",
    "private",
    "test",
];

/// Returns words about a name of a network that programs also use for something else.
pub(super) fn words(name: &str) -> Option<String> {
    let is_country = name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_lowercase());
    let is = match () {
        () if LOCAL.contains(&name) => "a name that local networks and resolvers use",
        () if is_country || DOMAINS.contains(&name) => "a top-level domain",
        () => return None,
    };
    Some(format!(
        "`{name}` is also {is}: programs in this network find members by names such as alpha.{name}, and nothing else \
         that ends so; `--as` of `peersock join` gives it another name on a machine"
    ))
}

/// Warns of such a name.
pub(super) fn warn(name: &str) {
    if let Some(words) = words(name) {
        stdio::note(words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_domains_are_told() {
        for name in ["com", "local", "de", "internal", "dev"] {
            assert!(words(name).is_some_and(|words| words.contains(&format!("alpha.{name}"))), "{name}");
        }
        for name in ["team", "office", "net0", "d3", "company"] {
            assert_eq!(words(name), None, "{name}");
        }
    }
}

//! Checks that Rust's Debug forms, which are for developers, are in no text for users: error texts, printed
//! texts, and logs of every level.
//!
//! Only panics and Debug forms themselves may have them.

use std::fs;

use syn::buffer::{Cursor, TokenBuffer};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprPath, ImplItemFn, ItemFn, ItemImpl, ItemMod, Macro, Meta, Token};

use super::sources::rust_files;
use super::workspace::Package;
use crate::{Result, root};

/// Programs for peersock's developers, who are the only readers of their output.
pub(super) const TOOLS: [&str; 7] = [
    "peersock-bench",
    "peersock-fuzz-targets",
    "peersock-root-lab",
    "peersock-sim",
    "peersock-stack-lab",
    "peersock-testnet",
    "xtask",
];

/// Macros with a text, except those that panic.
const TEXTS: [&str; 10] =
    ["eprint", "eprintln", "format", "format_args", "json", "print", "println", "write", "writeln", "concat"];

/// Logging macros. A `?` makes one of their fields a Debug form.
pub(super) const LOGS: [&str; 12] = [
    "debug",
    "debug_span",
    "error",
    "error_span",
    "event",
    "info",
    "info_span",
    "span",
    "trace",
    "trace_span",
    "warn",
    "warn_span",
];

/// Returns the Debug forms in a crate's source code.
/// Fails if a file cannot be read.
pub(super) fn complaints(package: &Package) -> Result<Vec<String>> {
    if TOOLS.contains(&package.name.as_str()) {
        return Ok(Vec::new());
    }
    let mut complaints = Vec::new();
    for file in rust_files(&package.manifest.with_file_name("src"))? {
        let name = file.strip_prefix(root()).unwrap_or(&file);
        for form in debug_forms(&fs::read_to_string(&file)?)? {
            complaints.push(format!("{}: a Debug form in what people read: {form}", name.display()));
        }
    }
    Ok(complaints)
}

fn debug_forms(source: &str) -> Result<Vec<String>> {
    let mut found = Forms(Vec::new());
    found.visit_file(&syn::parse_file(source)?);
    Ok(found.0)
}

struct Forms(Vec<String>);

impl Forms {
    /// Checks a macro call with this text.
    fn look_into(&mut self, name: &str, text: &str) {
        let is_log = LOGS.contains(&name);
        if (is_log || TEXTS.contains(&name)) && has_debug_text(text) || is_log && has_debug_field(text) {
            self.0.push(format!("{name}!({text})"));
        }
    }

    /// Searches for macros in the tokens of a macro with special grammar, such as the logging macros,
    /// `select!` and `macro_rules!`.
    fn visit_tokens(&mut self, at: Cursor<'_>) {
        each_macro(at, &mut |name, group| self.look_into(name, &group.token_stream().to_string()));
    }
}

/// Passes on the name and the tokens of each macro call at a place in the code and after it.
pub(super) fn each_macro(mut at: Cursor<'_>, found: &mut impl FnMut(&str, Cursor<'_>)) {
    let mut called: Option<(String, bool)> = None;
    while !at.eof() {
        if let Some((group, _, _, rest)) = at.any_group() {
            if let Some((name, true)) = called.take() {
                found(&name, group);
            }
            each_macro(group, found);
            at = rest;
        } else if let Some((name, rest)) = at.ident() {
            (called, at) = (Some((name.to_string(), false)), rest);
        } else if let Some((punct, rest)) = at.punct() {
            called = called.filter(|_| punct.as_char() == '!').map(|(name, _)| (name, true));
            at = rest;
        } else {
            let Some((_, rest)) = at.token_tree() else { return };
            (called, at) = (None, rest);
        }
    }
}

impl<'ast> Visit<'ast> for Forms {
    fn visit_macro(&mut self, called: &'ast Macro) {
        let name = called.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        self.look_into(&name, &called.tokens.to_string());
        // Other macros may contain such calls.
        match called.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            Ok(arguments) => arguments.iter().for_each(|argument| self.visit_expr(argument)),
            Err(_) => self.visit_tokens(TokenBuffer::new2(called.tokens.clone()).begin()),
        }
    }

    /// Checks `#[error("…")]` on the variants of an error, and `#[instrument]`, which logs arguments by their
    /// Debug forms.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta
            && list.path.is_ident("error")
            && has_debug_text(&list.tokens.to_string())
        {
            self.0.push(format!("#[error({})]", list.tokens));
        }
        if attribute.path().segments.last().is_some_and(|segment| segment.ident == "instrument") {
            self.0.push("#[instrument]".to_owned());
        }
    }

    /// Finds `fmt::Debug::fmt`, by which a Display form could be the Debug form, and `tracing::field::debug`.
    fn visit_expr_path(&mut self, path: &'ast ExprPath) {
        let names: Vec<_> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [.., of, name] = &names[..]
            && matches!((of.as_str(), name.as_str()), ("Debug", "fmt") | ("field", "debug"))
        {
            self.0.push(format!("{of}::{name}"));
        }
        visit::visit_expr_path(self, path);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let of = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
        if of.is_none_or(|of| of.ident != "Debug") {
            visit::visit_item_impl(self, item);
        }
    }

    /// Skips `record_debug`, by which `tracing` passes logged values in any form.
    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if function.sig.ident != "record_debug" {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }
}

/// Returns true if an item exists only in tests.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        meta => meta.path().is_ident("test"),
    })
}

/// Returns true if a text in the tokens of a macro requests a Debug form, as `{x:?}` and `{:#?}` do.
fn has_debug_text(tokens: &str) -> bool {
    tokens.match_indices("?}").any(|(at, _)| {
        let place = tokens[..at].rsplit('{').next().unwrap_or_default();
        place.contains(':') && !place.contains(char::is_whitespace)
    })
}

/// Returns true if a field of an event is a Debug form: a `?` before it, as in `?x` and `name = ?x`.
fn has_debug_field(tokens: &str) -> bool {
    let (mut is_text, mut before) = (false, ',');
    let mut characters = tokens.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if is_text => {
                characters.next();
                continue;
            }
            '"' => is_text = !is_text,
            // Elsewhere `?` follows a fallible expression.
            '?' if !is_text && matches!(before, ',' | '=' | '(' | '{') => return true,
            _ => {}
        }
        if !character.is_whitespace() {
            before = character;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(body: &str) -> Vec<String> {
        debug_forms(&format!("fn f() {{ {body}; }}")).expect("it is Rust")
    }

    #[test]
    fn debug_forms_are_found_where_people_read_them() {
        for bad in [
            r#"tracing::debug!(?purpose, "no answer")"#,
            r#"tracing::info!(peer = %id, late = ?cx.now - due, "it is late")"#,
            r#"warn!(target: "x", { a = 1, b = ?c }, "text")"#,
            r#"tracing::error!("it is {:?}", x)"#,
            r#"trace!("a \" {x:#?}")"#,
            r#"info!("it took {time:.1?}")"#,
            r#"Err(io::Error::other(format!("the answer is {code:?}")))"#,
            r#"write!(f, "{:?}", self)"#,
            r#"println!("{}", format!("{x:?}"))"#,
            r#"fmt::Debug::fmt(self, f)"#,
            r#"tracing::info_span!("dial", ?peer)"#,
            r#"span.record("peer", tracing::field::debug(&peer))"#,
            r#"tracing::debug!(peer = %id, text = format!("{x:?}"), "text")"#,
            r#"tokio::select! { read = socket.recv() => { tracing::warn!(?read, "read"); } _ = ended => {} }"#,
            r#"macro_rules! tell { ($x:expr) => { tracing::debug!(x = ?$x, "it is so") } }"#,
        ] {
            assert!(!look(bad).is_empty(), "{bad}");
        }
        let errors = r#"enum E { #[error("{0:?} is wrong")] A(String) }"#;
        assert_eq!(debug_forms(errors).expect("it is Rust").len(), 1);
        let instrumented = r#"#[tracing::instrument(skip(key))] fn f(peer: Peer, key: Key) {}"#;
        assert_eq!(debug_forms(instrumented).expect("it is Rust").len(), 1);
        let display = r#"impl Display for E { fn fmt(&self) { write!(f, "{:?}", self.0) } }"#;
        assert_eq!(debug_forms(display).expect("it is Rust").len(), 1);
    }

    #[test]
    fn what_panics_what_is_tested_and_debug_forms_themselves_may_have_them() {
        for good in [
            r#"tracing::debug!(peer = %id, size, answer = read()?, "is it so? yes")"#,
            r#"assert!(x, "{y:?}")"#,
            r#"panic!("{y:?}")"#,
            r#"format!("{y}")"#,
            r#"let z = x?"#,
            r#"tokio::select! { read = socket.recv() => { tracing::warn!(%read, size = f(read)?, "read"); } }"#,
            r#"tracing::info_span!("dial", %peer)"#,
        ] {
            assert_eq!(look(good), [""; 0], "{good}");
        }
        for good in [
            r#"impl fmt::Debug for E { fn fmt(&self) { write!(f, "E({:?})", self.0) } }"#,
            r#"impl Visit for Text { fn record_debug(&mut self) { write!(self.0, "{value:?}") } }"#,
            r#"#[cfg(test)] mod tests { fn f() { println!("{x:?}"); } }"#,
            r#"#[test] fn f() { println!("{x:?}"); }"#,
            r#"/// `println!("{x:?}")` shows it.
               struct S;"#,
        ] {
            assert_eq!(debug_forms(good).expect("it is Rust"), [""; 0], "{good}");
        }
    }
}

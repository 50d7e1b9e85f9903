//! Checks that texts for people contain no phrase that is banned in documents ([`prose`]).
//!
//! Every string literal outside of tests counts as a text if it has a space: error texts, hints, notes, logs,
//! and texts in attributes and macros. A single word may be a name. The doc comments of clap's arguments
//! count, too, because `--help` prints them.

use std::fs;

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};
use syn::{
    Attribute, Expr, ExprLit, ImplItemFn, ItemEnum, ItemFn, ItemImpl, ItemMod, ItemStruct, Lit, LitStr,
    Macro, Meta,
};

use super::debug_forms::is_test;
use super::prose;
use super::sources::rust_files;
use super::workspace::Package;
use crate::{Result, root};

/// Files that may have the phrases: the list of them, and one whose text "an address stands for one host" is
/// older than this check.
const EXEMPT: [&str; 2] = ["managed/rules/src/file/tests_of_rules.rs", "xtask/src/test/prose.rs"];

/// Derived traits by which doc comments become texts of `--help`.
const HELP: [&str; 4] = ["Args", "Parser", "Subcommand", "ValueEnum"];

/// Returns the banned phrases in the texts of a crate.
/// Fails if a source file cannot be read.
pub(super) fn complaints(package: &Package) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for file in rust_files(&package.manifest.with_file_name("src"))? {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        if EXEMPT.contains(&name.as_str()) {
            continue;
        }
        for text in texts(&fs::read_to_string(&file)?)? {
            let phrases = prose::phrases(&text);
            complaints
                .extend(phrases.into_iter().map(|(_, phrase)| format!("{name}: '{phrase}' in \"{text}\"")));
        }
    }
    Ok(complaints)
}

/// Returns the texts of a source file in which a phrase can be.
fn texts(source: &str) -> Result<Vec<String>> {
    let mut found = Texts(Vec::new());
    found.visit_file(&syn::parse_file(source)?);
    found.0.retain(|text| text.trim().contains(char::is_whitespace));
    Ok(found.0)
}

struct Texts(Vec<String>);

impl Texts {
    /// Adds the literals at a place in the tokens of a macro or an attribute and after it.
    fn add_tokens(&mut self, mut at: Cursor<'_>) {
        while !at.eof() {
            if let Some((group, _, _, rest)) = at.any_group() {
                self.add_tokens(group);
                at = rest;
            } else if let Some((literal, rest)) = at.literal() {
                if let Lit::Str(text) = Lit::new(literal) {
                    self.0.push(text.value());
                }
                at = rest;
            } else {
                let Some((_, rest)) = at.token_tree() else { return };
                at = rest;
            }
        }
    }

    /// Adds the lines of an item's doc comment as one text.
    fn add_help(&mut self, attributes: &[Attribute]) {
        let lines: Vec<_> = attributes.iter().filter_map(doc_line).collect();
        self.0.push(lines.join("\n"));
    }
}

/// Returns a line of a doc comment.
fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
    pair.path.is_ident("doc").then(|| text.value())
}

/// Returns true if clap makes arguments of an item.
fn is_help(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("derive") => {
            let traits = list.tokens.to_string();
            traits.split(|c: char| !c.is_alphanumeric()).any(|name| HELP.contains(&name))
        }
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.0.push(text.value());
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.add_tokens(TokenBuffer::new2(called.tokens.clone()).begin());
    }

    /// Adds texts such as those of `#[error("…")]` and `#[arg(help = "…")]`.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.add_tokens(TokenBuffer::new2(list.tokens.clone()).begin()),
            Meta::NameValue(pair) if !pair.path.is_ident("doc") => self.visit_expr(&pair.value),
            _ => {}
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if is_help(&item.attrs) {
            self.add_help(&item.attrs);
            item.fields.iter().for_each(|field| self.add_help(&field.attrs));
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if is_help(&item.attrs) {
            self.add_help(&item.attrs);
            for variant in &item.variants {
                self.add_help(&variant.attrs);
                variant.fields.iter().for_each(|field| self.add_help(&field.attrs));
            }
        }
        visit::visit_item_enum(self, item);
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

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_in_code_macros_attributes_and_help() {
        for source in [
            r#"const HINT: &str = "a hint";"#,
            r#"fn f() { note("a hi\
               nt"); }"#,
            r##"fn f() { print!("{}", g(r#"a hint"#)) }"##,
            r#"fn f() { select! { x = y() => { warn!(%x, "a hint"); } } }"#,
            r#"enum E { #[error("a hint")] A(String) }"#,
            r#"#[command(about = "a hint")] struct A;"#,
            r#"#[reason = "a hint"] struct A;"#,
            "#[derive(Debug, clap::Args)] struct A {\n    /// a hint\n    a: u8\n}",
            "#[derive(Subcommand)] enum A {\n    /// a hint\n    A\n}",
        ] {
            let found = texts(source).expect("it is Rust");
            assert_eq!(found.iter().map(|text| text.trim()).collect::<Vec<_>>(), ["a hint"], "{source}");
        }
        let lines = "#[derive(Args)] struct A {\n    /// is\n    /// it\n    a: u8\n}";
        assert_eq!(texts(lines).expect("it is Rust"), [" is\n it"]);
    }

    #[test]
    fn names_comments_and_tests_are_no_texts() {
        for source in [
            r#"const USER: &str = "nobody";"#,
            "/// A comment.\nstruct A; // As here.",
            r#"#[cfg(test)] mod tests { const A: &str = "a hint"; }"#,
            r#"#[cfg(all(test, feature = "dns"))] mod tests { const A: &str = "a hint"; }"#,
            r#"#[test] fn f() { g("a hint"); }"#,
            r#"impl A { #[cfg(test)] fn f() { g("a hint"); } }"#,
        ] {
            assert_eq!(texts(source).expect("it is Rust"), [""; 0], "{source}");
        }
    }
}

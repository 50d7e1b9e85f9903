//! Checks that the samples of texts cover every variant of the library's errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, Item, ItemMod, Macro, Token};

/// Errors that become failures, with their files and their names in the samples.
const ERRORS: [(&str, &str, &str); 7] = [
    ("StateError", "src/state/error.rs", "StateError"),
    ("ConfigError", "src/config/error.rs", "ConfigError"),
    ("StartError", "src/node/builder.rs", "StartError"),
    ("NetworkIdError", "overlay/src/network/error.rs", "NetworkIdError"),
    ("NetworkConfigError", "overlay/src/network/error.rs", "Error"),
    ("JoinError", "overlay/src/endpoint/config.rs", "JoinError"),
    ("ManagementError", "src/management/mod.rs", "ManagementError"),
];

#[test]
fn every_variant_of_the_library_s_errors_has_a_sample() {
    let samples = samples(&source("cli/terminal/src/failure/library.rs"));
    // Skips a variant that exists only in builds that lack a part, and whose text says what to do.
    let is_made = |variant: &&String| *variant != "MissingFeature";
    let mut missing = Vec::new();
    for (error, file, name) in ERRORS {
        let variants = variants(&source(file), error);
        assert!(variants.len() > 1, "{file} has no {error} any more");
        let lacks = |variant: &&String| !samples.contains(&(name.to_owned(), (*variant).clone()));
        missing.extend(
            variants.iter().filter(is_made).filter(lacks).map(|variant| format!("{error}::{variant}")),
        );
    }
    assert!(missing.is_empty(), "give `samples::all` one of each: {}", missing.join(", "));
}

#[test]
fn variants_and_samples_are_found_wherever_they_stand() {
    let error = "pub enum Odd { One, Two(u8), Three { at: u8 } }";
    assert_eq!(variants(error, "Odd"), ["One", "Two", "Three"]);
    let code =
        "fn f() { Odd::One; } mod samples { fn g() { vec![Odd::Two(1)]; h(x::Odd::Three { at: 1 }); } }";
    let found = samples(code);
    let has = |variant: &str| found.contains(&("Odd".to_owned(), variant.to_owned()));
    assert!(!has("One") && has("Two") && has("Three"), "{found:?}");
}

fn source(file: &str) -> String {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is in the workspace");
    fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the variants of an enum.
fn variants(source: &str, name: &str) -> Vec<String> {
    let file = syn::parse_file(source).expect("the source is Rust");
    let mut enums = file.items.iter().filter_map(|item| match item {
        Item::Enum(one) if one.ident == name => Some(one),
        _ => None,
    });
    let variants = enums.next().into_iter().flat_map(|one| &one.variants);
    variants.map(|variant| variant.ident.to_string()).collect()
}

/// Returns the variants in the samples' module, each with its enum.
fn samples(source: &str) -> BTreeSet<(String, String)> {
    let mut found = Samples::default();
    found.visit_file(&syn::parse_file(source).expect("the source is Rust"));
    found.names
}

#[derive(Default)]
struct Samples {
    is_inside: bool,
    names: BTreeSet<(String, String)>,
}

impl<'ast> Visit<'ast> for Samples {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let was_inside = self.is_inside;
        self.is_inside |= module.ident == "samples";
        visit::visit_item_mod(self, module);
        self.is_inside = was_inside;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [.., owner, name] = &names[..]
            && self.is_inside
        {
            self.names.insert((owner.clone(), name.clone()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        if let Ok(arguments) = called.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }
}

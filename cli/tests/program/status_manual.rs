//! `docs/use/STATUS.md` explains every field of `peersock status --json`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn the_manual_explains_every_field_of_a_status() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manual = fs::read_to_string(root.join("docs/use/STATUS.md")).expect("the manual");
    let mut fields = Vec::new();
    for source in sources(&root.join("src/node/status")) {
        fields.extend(serialized_fields(&source));
    }
    assert!(fields.len() > 60 && fields.contains(&"stream_error".to_owned()), "{fields:?}");
    // Fields appear as `name`, `group.name` or `group.name.name`, in a table's first column or in a text.
    let explained: BTreeSet<_> =
        manual.split('`').skip(1).step_by(2).flat_map(|code| code.split('.')).collect();
    let missing: Vec<_> = fields.iter().filter(|field| !explained.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "docs/use/STATUS.md lacks {missing:?}");
}

/// Returns the texts of all files in a folder and its subfolders.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("a file").path());
    let texts = entries.flat_map(|path| match path.is_dir() {
        true => sources(&path),
        false => vec![fs::read_to_string(path).expect("text")],
    });
    texts.collect()
}

/// Returns the fields of structures that are printed as JSON, according to `serde` attributes.
fn serialized_fields(source: &str) -> Vec<String> {
    let file = syn::parse_file(source).expect("it compiles");
    let mut fields = Vec::new();
    for item in file.items {
        let syn::Item::Struct(item) = item else { continue };
        let derives = |attribute: &syn::Attribute| {
            let mut is_serialized = false;
            let _ = attribute.path().is_ident("derive").then(|| {
                attribute.parse_nested_meta(|meta| {
                    is_serialized |= meta.path.is_ident("Serialize");
                    Ok(())
                })
            });
            is_serialized
        };
        if item.attrs.iter().any(derives) {
            fields.extend(item.fields.iter().filter_map(|field| Some(field.ident.as_ref()?.to_string())));
        }
    }
    fields
}

//! Writes the results into a document, between two marker comments that stay in place.

use std::fs;
use std::path::Path;

use crate::Result;

/// A place for results: the marker comments above and below the replaced text, each alone on its line.
pub(crate) type Place = [&'static str; 2];
/// Place of the results of `bench`.
pub(crate) const BENCH: Place = ["<!-- bench -->", "<!-- /bench -->"];
/// Place of the results of `bench rivals`.
pub(crate) const RIVALS: Place = ["<!-- rivals -->", "<!-- /rivals -->"];
/// Place of the results of `bench stages`.
pub(crate) const STAGES: Place = ["<!-- stages -->", "<!-- /stages -->"];

/// Checks that a document has a place for results. Call it before minutes of measuring.
/// Fails if the file cannot be read, or the markers are missing.
pub(crate) fn check(path: &Path, place: Place) -> Result<()> {
    replaced(&read(path)?, place, "").map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(())
}

/// Writes results into a document.
/// Fails with the errors of [`check`]; or the file cannot be written.
pub(crate) fn write(path: &Path, place: Place, text: &str) -> Result<()> {
    let block = format!("\n{}\n\n", text.trim_end());
    let text = replaced(&read(path)?, place, &block).map_err(|e| format!("{}: {e}", path.display()))?;
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

/// Returns the document with `block` between the markers. Each marker must occur once, alone on its line.
fn replaced(document: &str, [begin, end]: Place, block: &str) -> std::result::Result<String, String> {
    let lines: Vec<&str> = document.split_inclusive('\n').collect();
    let places = |mark: &str| -> Vec<usize> {
        lines.iter().enumerate().filter(|(_, line)| line.trim_end() == mark).map(|(at, _)| at).collect()
    };
    match (&places(begin)[..], &places(end)[..]) {
        (&[first], &[last]) if first < last => {
            Ok(format!("{}{block}{}", lines[..=first].concat(), lines[last..].concat()))
        }
        _ => Err(format!("the lines {begin} and below it {end} have to be there once, for the results")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_comments_is_replaced() {
        let document =
            "# A\n\nThe line `<!-- bench -->` is a mark.\n<!-- bench -->\nold\n\n<!-- /bench -->\nend\n";
        let expected =
            "# A\n\nThe line `<!-- bench -->` is a mark.\n<!-- bench -->\nnew\n<!-- /bench -->\nend\n";
        assert_eq!(replaced(document, BENCH, "new\n").as_deref(), Ok(expected));
        assert_eq!(replaced(expected, BENCH, "new\n").as_deref(), Ok(expected), "twice is as once");
    }

    #[test]
    fn a_document_without_its_place_is_left_alone() {
        for document in [
            "",
            "<!-- bench -->\n",
            "<!-- /bench -->\n",
            "a\n<!-- /bench -->\nb\n<!-- bench -->\nc\n",
            "<!-- bench -->\n<!-- /bench -->\n<!-- bench -->\n<!-- /bench -->\n",
            "text <!-- bench -->\n<!-- /bench -->\n",
        ] {
            assert!(replaced(document, BENCH, "new\n").is_err(), "{document:?}");
        }
    }

    #[test]
    fn results_are_written_between_the_comments() {
        let folder = tempfile::tempdir().expect("a folder");
        let document = folder.path().join("A.txt");
        fs::write(&document, "<!-- bench -->\n<!-- /bench -->\n").expect("a writable folder");
        check(&document, BENCH).expect("it has a place");
        write(&document, BENCH, "figure 1\n").expect("a writable file");
        let text = fs::read_to_string(&document).expect("just written");
        assert_eq!(text, "<!-- bench -->\n\nfigure 1\n\n<!-- /bench -->\n");
        fs::write(&document, "nothing\n").expect("a writable file");
        assert!(check(&document, BENCH).is_err());
    }

    #[test]
    fn the_document_of_the_figures_has_its_places() {
        for place in [BENCH, RIVALS, STAGES] {
            check(&crate::root().join("docs/measured/FIGURES.txt"), place).expect("the comments");
        }
    }
}

//! Texts for people to read.

use std::fmt::{self, Display, Write};

/// Items that are displayed with spaces between them.
pub(crate) struct List<I>(pub(crate) I);

impl<T: Display, I: Iterator<Item = T> + Clone> Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.0.clone().enumerate() {
            if n > 0 {
                f.write_char(' ')?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_separated_by_spaces() {
        assert_eq!(List([1, 2, 3].iter()).to_string(), "1 2 3");
        assert_eq!(List([0; 0].iter()).to_string(), "");
    }
}

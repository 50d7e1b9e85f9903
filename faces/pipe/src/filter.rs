//! Which messages a subscription is for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use peersock::interfaces::IpBlock;
use regex::bytes::{Regex, RegexBuilder};

use crate::{Message, PipeError};

/// Messages in which a pattern is found, from sources that match. [`Filter::all`] is everything.
///
/// Patterns are regular expressions of bytes, in the syntax of the crate `regex` without Unicode: `.` is any
/// byte but a newline, `\d` an ASCII digit. They take time linear in the message, whoever wrote them.
///
/// ```
/// use peersock_pipe::{Filter, Message};
///
/// let filter = Filter::pattern("^[hH]ello")?.from_ip([192, 0, 2, 1].into());
/// assert!(filter.matches(&Message::new("hello you", ([192, 0, 2, 1], 7).into())));
/// assert!(!filter.matches(&Message::new("hello you", ([192, 0, 2, 2], 7).into())));
/// assert!(Filter::pattern("(").is_err());
/// # Ok::<(), peersock_pipe::PipeError>(())
/// ```
#[derive(Clone, Default)]
pub struct Filter {
    pattern: Option<Regex>,
    source: Option<Source>,
}

#[derive(Clone)]
enum Source {
    /// Port 0 is any.
    Block(IpBlock, u16),
    Pattern(Regex),
}

impl Filter {
    /// All messages from everybody.
    pub fn all() -> Filter {
        Filter::default()
    }

    /// Messages in which the pattern is found.
    ///
    /// # Errors
    /// [`PipeError::Pattern`].
    pub fn pattern(pattern: &str) -> Result<Filter, PipeError> {
        Ok(Filter { pattern: Some(compile(pattern)?), source: None })
    }

    /// Of those, only what this address sends; port 0 is any port of it.
    pub fn from_addr(mut self, addr: SocketAddr) -> Filter {
        self.source = Some(Source::Block(IpBlock::single(addr.ip().to_canonical()), addr.port()));
        self
    }

    /// Of those, only what this address sends, from any port.
    pub fn from_ip(self, ip: IpAddr) -> Filter {
        self.from_block(IpBlock::single(ip.to_canonical()))
    }

    /// Of those, only what the addresses of a block send, from any port.
    pub fn from_block(mut self, block: IpBlock) -> Filter {
        self.source = Some(Source::Block(block, 0));
        self
    }

    /// Of those, only what is sent by whose `ADDRESS:PORT` (in IPv6 `[ADDRESS]:PORT`) has the pattern in it.
    ///
    /// # Errors
    /// [`PipeError::Pattern`].
    pub fn from_pattern(mut self, pattern: &str) -> Result<Filter, PipeError> {
        self.source = Some(Source::Pattern(compile(pattern)?));
        Ok(self)
    }

    /// Whether a message is one of those.
    pub fn matches(&self, message: &Message) -> bool {
        let from = message.from();
        let is_from = match &self.source {
            None => true,
            Some(Source::Block(block, port)) => {
                (*port == 0 || *port == from.port()) && block.contains(from.ip().to_canonical())
            }
            Some(Source::Pattern(pattern)) => pattern.is_match(from.to_string().as_bytes()),
        };
        is_from && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(message.data()))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("pattern", &self.pattern.as_ref().map(Regex::as_str))
            .finish_non_exhaustive()
    }
}

fn compile(pattern: &str) -> Result<Regex, PipeError> {
    let built = RegexBuilder::new(pattern).unicode(false).build();
    built.map_err(|error| PipeError::Pattern { pattern: pattern.to_owned(), reason: error.to_string() })
}

//! Filters of subscriptions.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use peersock::interfaces::IpBlock;
use regex::bytes::{Regex, RegexBuilder};

use crate::{Message, PipeError};

/// A filter of messages by pattern and source. [`Filter::all`] matches everything.
///
/// Patterns are regular expressions of bytes, in the syntax of the crate `regex` without Unicode: `.` is any
/// byte but a newline, `\d` an ASCII digit. Matching takes time linear in the message, even for hostile
/// patterns.
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
    /// A block of addresses and a port; port 0 is any.
    Block(IpBlock, u16),
    Pattern(Regex),
}

impl Filter {
    /// Makes a filter that matches all messages from all sources.
    pub fn all() -> Filter {
        Filter::default()
    }

    /// Makes a filter for messages in which the pattern is found.
    ///
    /// # Errors
    /// [`PipeError::Pattern`].
    pub fn pattern(pattern: &str) -> Result<Filter, PipeError> {
        Ok(Filter { pattern: Some(compile(pattern)?), source: None })
    }

    /// Limits the filter to messages from this address; port 0 is any port.
    pub fn from_addr(mut self, addr: SocketAddr) -> Filter {
        self.source = Some(Source::Block(IpBlock::single(addr.ip().to_canonical()), addr.port()));
        self
    }

    /// Limits the filter to messages from this address and any port.
    pub fn from_ip(self, ip: IpAddr) -> Filter {
        self.from_block(IpBlock::single(ip.to_canonical()))
    }

    /// Limits the filter to messages from the addresses of a block and any port.
    pub fn from_block(mut self, block: IpBlock) -> Filter {
        self.source = Some(Source::Block(block, 0));
        self
    }

    /// Limits the filter to sources whose `ADDRESS:PORT` (in IPv6 `[ADDRESS]:PORT`) contains the pattern.
    ///
    /// # Errors
    /// [`PipeError::Pattern`].
    pub fn from_pattern(mut self, pattern: &str) -> Result<Filter, PipeError> {
        self.source = Some(Source::Pattern(compile(pattern)?));
        Ok(self)
    }

    /// Returns true if the filter matches the message.
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

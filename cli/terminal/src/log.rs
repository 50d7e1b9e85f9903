//! Lines of the log on stderr.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Takes a filter in the place of `-v`.
pub const VARIABLE: &str = "PEERSOCK_LOG";

/// Never shown: the STUN library warns of each malformed datagram, which anybody can send, and has keys in its
/// spans.
pub const SILENT: &str = "stun_types";

/// Formats warnings for people who have not asked for a log: as all else that a program says on stderr.
pub struct Note;

impl<S, N> FormatEvent<S, N> for Note
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "peersock: warning: ")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

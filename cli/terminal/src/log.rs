//! Log lines on stderr.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Environment variable with a filter, an alternative to `-v`.
pub const VARIABLE: &str = "PEERSOCK_LOG";

/// Crate that is never logged. The STUN library warns of each malformed datagram, which anyone can send, and
/// its spans contain keys.
pub const SILENT: &str = "stun_types";

/// Formats warnings for users without a log, like all other messages on stderr.
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

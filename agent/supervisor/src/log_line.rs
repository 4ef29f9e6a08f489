//! How PostgreSQL begins each line of its log, so that the supervisor can read it back.

/// `log_line_prefix`: fields with a tab after each, the last of which repeats process and time.
///
/// Names come from clients, before they have proved who they are, and may hold anything: tabs, line ends, what looks like
/// another line of the log. So the prefix ends with what nobody can know beforehand: the process and the millisecond.
/// Whatever lies before that belongs to the names. Nothing is left out with `%q`: processes without a session write empty
/// fields, and the number of fields is always the same.
pub const PREFIX: &str = "%n\t%p\t%b\t%e\t%h\t%u\t%d\t%a\t%p.%n\t";

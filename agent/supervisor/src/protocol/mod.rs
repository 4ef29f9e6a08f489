//! The supervisor's socket protocol, version 1: pure types, and the text they travel as.
//!
//! Requests are lines over a `SOCK_STREAM` Unix socket; words are separated by single spaces, values are
//! percent-encoded (everything but `A-Z a-z 0-9 - . _ ~`; a reader also takes other printable characters as they are,
//! so a person can type requests). Every request has one answer, `OK <verb> …` or `ERR <code> <sentence>`, in order;
//! `DONE` lines (the end of a tool) and `EVENT` lines (after `WATCH`) come in between.
//!
//! ```text
//! HELLO 1                                                        OK HELLO 1 boot=<ms>
//! STATUS                                                         OK STATUS postgres=<pid|-> epoch=<text|-> …
//! START id= epoch= permit=<forever|ms> cwd= exec= arg=* env=*
//!       [lock=]                                                  OK START pid=<n>
//! RUN id= timeout_ms= cwd= exec= arg=* env=* [lock=] [stdin=]    OK RUN pid=<n>   later: DONE id= exit= out= err= …
//! PERMIT epoch= until=<forever|ms>                               OK PERMIT
//! EPOCH from= to= until=<forever|ms>                             OK EPOCH
//! SIGNAL to=postgres sig=<HUP|INT|TERM|QUIT|KILL|USR1>           OK SIGNAL
//! FENCE                                                          OK FENCE         (when no process is left)
//! WATCH                                                          OK WATCH         later: EVENT EXIT|FENCED|TERM …
//! ACK                                                            OK ACK
//! EXIT                                                           OK EXIT
//! ```
//!
//! A request with a field that this version does not know is refused (to ignore it would be a lie); a field of an
//! answer that the reader does not know is skipped.

mod exit;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod words;

pub use exit::{Exit, Permit, Signal};
pub use request::{Program, Request};
pub use response::{Done, ErrorCode, Event, Message, Output, Refusal, Response, Status};
pub use words::Malformed;

/// The highest version of the protocol in this crate.
pub const VERSION: u32 = 1;

/// Longest request, its newline included, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Longest line that the supervisor sends, its newline included, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Most bytes of standard input for a tool.
pub const MAX_STDIN: usize = 32 * 1024;

/// Most bytes kept of each output stream of a tool: its end is kept, [`Output::lost`] counts the rest.
pub const MAX_OUTPUT: usize = 1024 * 1024;

/// Most connections at once.
pub const MAX_CONNECTIONS: usize = 16;

/// Most tools at once.
pub const MAX_TOOLS: usize = 4;

/// Longest id or epoch, in bytes.
pub const MAX_NAME: usize = 128;

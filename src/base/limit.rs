//! Limits that more than one module uses. A limit of a single module is defined there.

/// The largest message body, in bytes: 1 MiB, as in SQS.
pub const BODY_BYTES_MAX: usize = 1_048_576;
/// The longest queue name, in characters, as in SQS.
pub const QUEUE_NAME_CHARS_MAX: usize = 80;
/// The longest user id, in bytes.
pub const USER_ID_BYTES_MAX: usize = 256;

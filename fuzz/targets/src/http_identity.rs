//! Requests of HTTP that get the fields of the member who has sent them.

use httparse::{Header, Request, Status};

/// Fields that are set.
const SET: [(&str, &str); 2] = [("Peersock-Member", "beta"), ("Peersock-Tags", "a,b")];

/// Passes requests on, and reads as services do what they get. Whatever the client sends, each request has
/// the fields that were set, before all others, and none that a service may take for one of these. The first
/// byte is the length of the pieces in which the others come.
pub fn http_identity(data: &[u8]) {
    let [piece, data @ ..] = data else { return };
    let set = SET.map(|(name, value)| (name, value.to_owned()));
    let passed = peersock_proxy::fuzzing::passed(&set, data.chunks(usize::from(*piece).max(1)));
    let whole = peersock_proxy::fuzzing::passed(&set, [data].into_iter());
    assert_eq!(passed, whole, "pieces make no difference");
    for reads_bodies in [true, false] {
        serve(&passed, reads_bodies);
    }
}

/// Reads requests until a service has to close the connection. One that does not read bodies takes a body for
/// the next request.
fn serve(mut bytes: &[u8], reads_bodies: bool) {
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut request = Request::new(&mut fields);
        let Ok(Status::Complete(length)) = request.parse(bytes) else { panic!("no whole head was passed") };
        let fields = &*request.headers;
        for (field, (name, value)) in fields.iter().zip(SET) {
            assert_eq!((field.name, field.value), (name, value.as_bytes()));
        }
        assert!(!fields[SET.len()..].iter().any(|field| is_like_ours(field.name)), "{fields:?}");
        bytes = &bytes[length..];
        let (size, is_chunked) =
            (value(fields, "content-length"), value(fields, "transfer-encoding").is_some());
        let size: u64 = size.map_or(0, |size| str::from_utf8(size).expect("digits").parse().expect("a size"));
        if size == 0 && !is_chunked {
            continue;
        }
        assert_eq!(value(fields, "connection"), Some(&b"close"[..]));
        if !reads_bodies {
            return;
        }
        let rest = if is_chunked { after_chunks(bytes) } else { after(bytes, size) };
        assert!(rest.is_empty(), "nothing follows the last request");
        return;
    }
}

/// Returns true for a name that a service may take for one that was set, as CGI makes `_` of each sign.
fn is_like_ours(name: &str) -> bool {
    let folded = name.to_ascii_lowercase().replace(|sign: char| !sign.is_ascii_alphanumeric(), "_");
    folded == "peersock" || folded.starts_with("peersock_")
}

/// Returns the value of the only field of a name.
fn value<'a>(fields: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let value = values.next()?.value;
    assert!(name == "connection" || values.next().is_none(), "{name} twice");
    Some(value)
}

fn after(bytes: &[u8], size: u64) -> &[u8] {
    usize::try_from(size).ok().and_then(|size| bytes.get(size..)).unwrap_or_default()
}

/// Returns what follows a body in chunks, without trailers.
fn after_chunks(mut bytes: &[u8]) -> &[u8] {
    while let Ok(Status::Complete((length, size))) = httparse::parse_chunk_size(bytes) {
        bytes = after(&bytes[length..], size);
        if bytes.len() < 2 {
            // The rest has not come.
            return &[];
        }
        assert_eq!(&bytes[..2], b"\r\n", "a line ends each chunk, and trailers are left out");
        bytes = &bytes[2..];
        if size == 0 {
            return bytes;
        }
    }
    &[]
}

//! Takes the bytes that a client has sent so far; says whether they are a request, and for what. Pure.

/// Longest request that is read: what browsers and Prometheus send is far below.
pub(super) const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most header lines.
const HEADERS_MAX: usize = 64;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The metrics.
    Metrics,
    /// The same, without the text itself.
    MetricsHead,
    /// What cannot be had.
    Refused(Refusal),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotHttp,
    TooLong,
    NoSuchPage,
    NotThisMethod,
    NotYet,
}

impl Refusal {
    /// Status line and text.
    pub(super) const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::NotHttp => ("400 Bad Request", "this is not HTTP\n"),
            Self::TooLong => ("431 Request Header Fields Too Large", "the request is too long\n"),
            Self::NoSuchPage => ("404 Not Found", "the metrics are at /metrics\n"),
            Self::NotThisMethod => ("405 Method Not Allowed", "only GET and HEAD are served\n"),
            Self::NotYet => ("503 Service Unavailable", "nothing has been counted yet\n"),
        }
    }
}

/// `None` while more of the request is to come.
pub(super) fn wish(received: &[u8]) -> Option<Wish> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(httparse::Status::Partial) if received.len() < REQUEST_BYTES_MAX => None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Some(Wish::Refused(Refusal::TooLong))
        }
        Err(_no_request) => Some(Wish::Refused(Refusal::NotHttp)),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let page = path.split('?').next().unwrap_or_default();
            Some(match (page, request.method.unwrap_or_default()) {
                ("/metrics", "GET") => Wish::Metrics,
                ("/metrics", "HEAD") => Wish::MetricsHead,
                ("/metrics", _) => Wish::Refused(Refusal::NotThisMethod),
                _ => Wish::Refused(Refusal::NoSuchPage),
            })
        }
    }
}

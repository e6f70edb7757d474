//! The check of the header `Host`, for a server on a loopback address.
//!
//! A page of the internet may let its own name point to this machine, and the browser then sends its requests here.
//! Such a request has the name in `Host`.

use http::{Request, header, uri::Authority};

/// Returns the host of a request that is none of this machine's loopback names.
pub(super) fn foreign<T>(request: &Request<T>) -> Option<String> {
    let authority: Authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => {
            // Without it, no browser sent the request.
            let value = request.headers().get(header::HOST)?;
            match value.to_str().ok().and_then(|text| text.parse().ok()) {
                Some(authority) => authority,
                None => return Some(format!("{value:?}")),
            }
        }
    };
    let host = authority.host();
    let is_local = host.eq_ignore_ascii_case("localhost")
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    (!is_local).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_interface_are_accepted() {
        let of = |host: &str| foreign(&Request::builder().header("host", host).body(()).unwrap());
        for local in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:8080"] {
            assert_eq!(of(local), None, "{local}");
        }
        for other in [
            "example.com",
            "localhost.example.com:8080",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.nip.io",
        ] {
            assert!(of(other).is_some(), "{other}");
        }
        assert_eq!(foreign(&Request::new(())), None);
        let absolute = Request::builder()
            .uri("http://example.com/v2")
            .header("host", "localhost");
        assert_eq!(foreign(&absolute.body(()).unwrap()), Some("example.com".to_owned()));
    }
}

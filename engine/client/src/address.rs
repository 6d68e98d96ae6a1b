//! Where a server is.
//!
//! Invariant: an [`Address`] is `http://HOST[:PORT][/PREFIX]`, without a query and without a `/` at its end.

use std::fmt;
use std::str::FromStr;

use ureq::http::Uri;

/// Where a server is: `http://127.0.0.1:7070`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// The text is no address of a server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not the address of a server: {why}; write it like http://127.0.0.1:7070", text.escape_debug())]
pub struct AddressError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |why| AddressError {
            text: text.to_owned(),
            why,
        };
        let uri: Uri = text.parse().map_err(|_| refuse("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(refuse("this client speaks plain http alone")),
            _ => return Err(refuse("it does not begin with http://")),
        }
        if uri
            .authority()
            .is_some_and(|host| host.as_str().contains('@'))
        {
            return Err(refuse("a name and password have no place in it"));
        }
        if uri.query().is_some() {
            return Err(refuse("it has a query"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl Address {
    /// `HOST:PORT`.
    pub(crate) fn host(&self) -> String {
        let rest = self.behind_scheme().trim_start_matches("://");
        let host = rest.split('/').next().unwrap_or(rest);
        // Behind the bracket of an IPv6 address, or anywhere in another.
        let behind = host.rsplit(']').next().unwrap_or(host);
        match behind.contains(':') {
            true => host.to_owned(),
            false => format!("{host}:80"),
        }
    }

    /// All but its scheme: `://HOST[:PORT][/PREFIX]`.
    pub(crate) fn behind_scheme(&self) -> &str {
        self.0.strip_prefix("http").unwrap_or(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http_and_says_what_is_wrong_if_it_is_not() {
        let good = "http://127.0.0.1:7070/".parse::<Address>().expect("good");
        assert_eq!(good.to_string(), "http://127.0.0.1:7070");
        let behind = "http://host/brood".parse::<Address>().expect("good");
        assert_eq!(behind.to_string(), "http://host/brood");
        for (text, host) in [
            ("http://127.0.0.1:7070", "127.0.0.1:7070"),
            ("http://host/brood", "host:80"),
            ("http://[::1]", "[::1]:80"),
            ("http://[::1]:7070/", "[::1]:7070"),
            ("http://http", "http:80"),
        ] {
            assert_eq!(text.parse::<Address>().expect("good").host(), host);
        }
        let refused = [
            ("https://host", "plain http"),
            ("127.0.0.1:7070", "http://"),
            ("localhost", "http://"),
            ("http://host?x=1", "query"),
            ("http://me:word@host", "password"),
            ("", "no URL"),
        ];
        for (text, words) in refused {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

//! One HTTP request at a time: with or without the proxy, through redirects, and never waiting for ever.

use std::path::Path;
use std::time::Duration;

use ureq::http::{Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, Timeout};

use super::{FetchOptions, is_regular, no_proxy};
use crate::error::quoted;
use crate::{DataError, Result, files};

/// Redirects that are followed at most.
const REDIRECTS: usize = 10;

pub(super) struct Client {
    direct: Agent,
    proxied: Option<Agent>,
    no_proxy: String,
    /// Longest silence of the other side.
    pub(super) patience: Duration,
}

impl Client {
    pub(super) fn new(options: FetchOptions) -> Result<Self> {
        let roots = root_certificates(options.ca_file)?;
        let patience = options.stall_timeout;
        let agent = |proxy| -> Agent {
            Agent::config_builder()
                .proxy(proxy)
                .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .accept_encoding("identity")
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_resolve(Some(patience))
                .timeout_connect(Some(patience))
                .timeout_send_request(Some(patience))
                .timeout_recv_response(Some(patience))
                .timeout_per_read(Some(patience))
                .timeout_per_write(Some(patience))
                .build()
                .into()
        };
        let proxy = options.proxy.map(proxy).transpose()?;
        Ok(Self {
            direct: agent(None),
            proxied: proxy.map(|proxy| agent(Some(proxy))),
            no_proxy: options.no_proxy.unwrap_or_default().to_owned(),
            patience,
        })
    }

    /// Answer to a GET request behind all redirects. `range` asks for the bytes from a place on, if the server still
    /// has the version of an entity tag.
    pub(super) fn get(&self, url: &str, range: Option<(u64, Option<&str>)>) -> Result<Response<ureq::Body>> {
        let mut at: Uri = url.parse().map_err(|_| transfer(url, "not an address"))?;
        for _ in 0..=REDIRECTS {
            let (agent, through) = self.agent(&at);
            let mut request = agent.get(&at);
            if let Some((from, etag)) = range {
                request = request.header(header::RANGE, format!("bytes={from}-"));
                if let Some(etag) = etag {
                    request = request.header(header::IF_RANGE, etag);
                }
            }
            let response = request.call().map_err(|e| transfer(url, self.problem(&e) + through))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                check_encoding(url, &response)?;
                return Ok(response);
            }
            at = redirected(&at, &response).map_err(|problem| transfer(url, problem))?;
        }
        Err(transfer(url, format!("the server redirects more than {REDIRECTS} times")))
    }

    /// The agent for an address, and what to say of it in an error.
    fn agent(&self, uri: &Uri) -> (&Agent, &'static str) {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        match &self.proxied {
            Some(agent) if !no_proxy::names_host(&self.no_proxy, host) => (agent, " (through the proxy)"),
            _ => (&self.direct, ""),
        }
    }

    /// What went wrong, in words.
    pub(super) fn problem(&self, error: &ureq::Error) -> String {
        let seconds = self.patience.as_secs_f64();
        match error {
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                format!("no connection within {seconds} s")
            }
            ureq::Error::Timeout(_) => format!("nothing came for {seconds} s"),
            error => {
                let text = redacted(&error.to_string());
                if text.contains("UnknownIssuer") {
                    return format!(
                        "{text}; SSL_CERT_FILE can name a file with other certificate authorities"
                    );
                }
                text
            }
        }
    }

    /// What went wrong while a body was read, in words.
    pub(super) fn read_problem(&self, error: &std::io::Error) -> String {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(inner) => self.problem(inner),
            None => redacted(&error.to_string()),
        }
    }
}

/// Checks an address under which files are.
pub(super) fn check_base(base: &str) -> Result<()> {
    let scheme = base.split("://").next().unwrap_or_default().to_ascii_lowercase();
    let usable = base.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if usable && ["http", "https"].contains(&scheme.as_str()) {
        return Ok(());
    }
    Err(DataError::Address {
        what: format!("the base address{}", shown(base)),
        expected: "an address that starts with https:// or http://",
    })
}

fn proxy(address: &str) -> Result<Proxy> {
    Proxy::new(address.trim()).map_err(|_| DataError::Address {
        what: format!("the proxy{}", shown(address)),
        expected: "an address such as http://proxy.example:3128 or socks5h://localhost:1080",
    })
}

/// An unusable address for a message, if it can hold no password.
fn shown(address: &str) -> String {
    if address.contains('@') {
        " (not shown: it may hold a password)".to_owned()
    } else {
        format!(" {}", quoted(address))
    }
}

/// Certificate authorities: those of a file, otherwise the system's, otherwise Mozilla's.
fn root_certificates(file: Option<&Path>) -> Result<RootCerts> {
    let Some(file) = file else {
        // A certificate that cannot be read is one that is not trusted; the others count.
        let found = rustls_native_certs::load_native_certs().certs;
        let certificates = found.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
        return Ok(if found.is_empty() { RootCerts::WebPki } else { RootCerts::from(certificates) });
    };
    // Reading a pipe might never end.
    is_regular(file)?;
    let certificates: Vec<Certificate> = parse_pem(&files::read(file)?)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(DataError::Empty {
            file: file.display().to_string(),
            expected: "certificate authorities in PEM",
        });
    }
    Ok(RootCerts::from(certificates))
}

/// The file itself is wanted, not a compressed form of it.
fn check_encoding(url: &str, response: &Response<ureq::Body>) -> Result<()> {
    for value in response.headers().get_all(header::CONTENT_ENCODING) {
        if !value.as_bytes().eq_ignore_ascii_case(b"identity") {
            let value = quoted(&String::from_utf8_lossy(value.as_bytes()));
            let problem =
                format!("the server sends it with Content-Encoding {value}; expected the file as it is");
            return Err(transfer(url, problem));
        }
    }
    Ok(())
}

/// Where a redirect leads.
fn redirected(from: &Uri, response: &Response<ureq::Body>) -> std::result::Result<Uri, String> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location else {
        return Err(format!("the server answered {} and does not say where to", response.status()));
    };
    let unusable = || format!("the server redirects to {}; expected an address", quoted(&redacted(location)));
    let to: Uri = resolved(from, location).ok_or_else(unusable)?.parse().map_err(|_| unusable())?;
    if to.host().is_none_or(str::is_empty) {
        return Err(unusable());
    }
    match (from.scheme_str(), to.scheme_str()) {
        (Some("https"), Some("https")) | (Some("http"), Some("http" | "https")) => Ok(to),
        _ => Err(format!(
            "the server redirects from {} to {}, which is refused",
            from.scheme_str().unwrap_or_default(),
            quoted(to.scheme_str().unwrap_or_default())
        )),
    }
}

/// The address that a `Location` means (RFC 3986, section 5.2, without the removal of dots).
fn resolved(from: &Uri, location: &str) -> Option<String> {
    let location = location.trim().split('#').next()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let has_scheme = location.split(['/', '?']).next()?.contains(':');
    Some(if location.is_empty() {
        return None;
    } else if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    })
}

/// An error of a download; user names and passwords are taken out of the address.
pub(super) fn transfer(url: &str, problem: impl Into<String>) -> DataError {
    DataError::Transfer { url: redacted(url), problem: problem.into() }
}

/// A text without the user information (`user:password@`) of the addresses in it.
fn redacted(text: &str) -> String {
    let mut rest = text;
    let mut clean = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(after.len());
        let authority = after[..end].find(['/', '?', '#']).unwrap_or(end);
        // Behind a colon there is a port or a password; a password may hold a slash.
        let odd = after[..authority]
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit()));
        let user = after[..if odd { end } else { authority }].rfind('@').map_or(0, |at| at + 1);
        if user > 0 {
            clean.push_str("***@");
        }
        rest = &after[user..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_printed() {
        for (text, clean) in [
            ("https://a.b/c@d", "https://a.b/c@d"),
            ("http://[::1]:80/c@d", "http://[::1]:80/c@d"),
            ("bad uri: http://u:p@a.b/c", "bad uri: http://***@a.b/c"),
            ("http://u:p@ss@a.b:80/c", "http://***@a.b:80/c"),
            ("http://u:p/q@a.b/c", "http://***@a.b/c"),
            ("http://u@a.b/c and \"ftp://v:w@x\"", "http://***@a.b/c and \"ftp://***@x\""),
            ("none", "none"),
        ] {
            assert_eq!(redacted(text), clean);
        }
    }

    #[test]
    fn locations_are_absolute_or_relative() {
        let from: Uri = "http://a.b:8/c/d?e".parse().unwrap();
        for (location, to) in [
            ("https://x/y", "https://x/y"),
            ("//x/y#z", "http://x/y"),
            ("/y?z=http://q", "http://a.b:8/y?z=http://q"),
            ("y", "http://a.b:8/c/y"),
            ("?y", "http://a.b:8/c/d?y"),
            ("mailto:me", "mailto:me"),
        ] {
            assert_eq!(resolved(&from, location).as_deref(), Some(to));
        }
        assert_eq!(resolved(&from, ""), None);
    }
}

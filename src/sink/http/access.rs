//! Who may reach a listener: the rule for addresses, the bearer token, and the names it answers to.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, Uri, header};

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The text is no address.
    #[error("{key} = \"{listen}\" is no address to listen on ({cause}); one looks like 127.0.0.1:8080")]
    Address {
        /// Configuration key.
        key: String,
        /// Its value.
        listen: String,
        /// What the resolver says.
        cause: std::io::Error,
    },
    /// Others than this machine could reach the address and nothing says that they may.
    #[error(
        "{section}.listen = \"{listen}\" can be reached from other machines: set {section}.bearer_token_file to a \
         file that holds a token, or {section}.allow_anonymous = true, or listen on 127.0.0.1"
    )]
    Open {
        /// Configuration section.
        section: &'static str,
        /// The address.
        listen: String,
    },
    /// Somebody else listens there.
    #[error(
        "{section}.listen = \"{listen}\" is in use by another process; stop it or choose another port (0 takes a \
         free one)"
    )]
    InUse {
        /// Configuration section.
        section: &'static str,
        /// The address.
        listen: String,
    },
    /// The system refuses the address.
    #[error("cannot listen on {section}.listen = \"{listen}\": {cause}")]
    Bind {
        /// Configuration section.
        section: &'static str,
        /// The address.
        listen: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The token file cannot be used.
    #[error("{key} = \"{}\": {reason}", path.display())]
    Token {
        /// Configuration key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry of `hosts` that no request could match.
    #[error(
        "{key} holds \"{host}\", which is no host name; write the name alone, such as traffic.example.org"
    )]
    HostName {
        /// Configuration key.
        key: String,
        /// The entry.
        host: String,
    },
    /// No thread or reactor could be had.
    #[error("cannot start the HTTP threads: {0}")]
    Runtime(std::io::Error),
}

/// A bearer token, kept as a hash only.
#[derive(Clone)]
pub(super) struct Token(blake3::Hash);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Fewer characters can be guessed over the network.
    const CHARS_MIN: usize = 16;

    /// Reads the token: the file's only line, surrounding white space left out.
    pub(super) fn read(section: &str, path: &Path) -> Result<Self, ServeError> {
        let error = |reason: String| ServeError::Token {
            key: format!("{section}.bearer_token_file"),
            path: path.to_owned(),
            reason,
        };
        let text = fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
        let token = text.trim();
        if token.len() < Self::CHARS_MIN {
            return Err(error(format!(
                "the token has {} characters, at least {} are needed; make one with `openssl rand -hex 32`",
                token.len(),
                Self::CHARS_MIN
            )));
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(error(
                "the token must be one line of visible ASCII characters".to_owned(),
            ));
        }
        Ok(Self(blake3::hash(token.as_bytes())))
    }

    /// Whether the value of an `Authorization` header shows this token. Takes the same time whatever is
    /// wrong with it: hashes of equal length are compared in constant time.
    pub(super) fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let shown = authorization.and_then(|value| {
            let (scheme, rest) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
        });
        shown.is_some_and(|token| blake3::hash(token.trim_ascii()) == self.0)
    }
}

/// The host names that a listener answers to.
///
/// A page from elsewhere may point its own name at this machine (DNS rebinding); the browser then lets it read
/// whatever needs no token. Its requests still carry that name as `Host`, which is how they are told apart. An
/// address instead of a name cannot be pointed anywhere, so addresses always pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hosts {
    // None admits every name.
    names: Option<Vec<String>>,
    section: &'static str,
}

impl Hosts {
    /// The rule for a listener at `listen`: with a token, every name; with names in `configured`, these; else,
    /// where only `listen` being loopback keeps others out, the names of this machine. `localhost`, what is
    /// below it, and the host of `listen` are always admitted.
    ///
    /// # Errors
    /// [`ServeError::HostName`] for an entry with a scheme, a port, a path or white space.
    pub(super) fn new(
        section: &'static str,
        listen: &str,
        bound: SocketAddr,
        configured: &[String],
        has_token: bool,
        allow_anonymous: bool,
    ) -> Result<Self, ServeError> {
        let mut names = Vec::with_capacity(configured.len() + 1);
        for host in configured {
            if !is_host_name(host) {
                return Err(ServeError::HostName {
                    key: format!("{section}.hosts"),
                    host: host.clone(),
                });
            }
            names.push(plain(host));
        }
        let loopback = bound.ip().to_canonical().is_loopback();
        let asked = !has_token && (!configured.is_empty() || (loopback && !allow_anonymous));
        names.push(plain(without_port(listen)));
        Ok(Self {
            names: asked.then_some(names),
            section,
        })
    }

    /// Why a request for this host is refused, `None` if it is not. No browser leaves the host out, so a
    /// request without one is no page's.
    pub(super) fn refuse(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        let names = self.names.as_ref()?;
        let shown = match (uri.host(), headers.get(header::HOST)) {
            (Some(host), _) => plain(host),
            // A value that is no text stays a name that nothing has.
            (None, Some(value)) => plain(without_port(value.to_str().unwrap_or("?"))),
            (None, None) => return None,
        };
        let admitted = shown.parse::<IpAddr>().is_ok()
            || shown == "localhost"
            || shown.ends_with(".localhost")
            || names.contains(&shown);
        (!admitted).then(|| {
            format!(
                "this server does not answer to the name `{shown}`; if it should, add it to {}.hosts",
                self.section
            )
        })
    }
}

/// Whether `host` is a host name alone; international names stand in their ASCII form.
pub(crate) fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// `host:port`, `[v6]:port` or `host` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// A host as it is compared: lower case, without the brackets of an address and the dot of the root.
fn plain(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inner.unwrap_or(host).to_ascii_lowercase()
}

/// Resolves `listen` and checks that whoever can reach it may: loopback is always allowed, anything else
/// only with a token or when anonymous callers are allowed in so many words.
///
/// `section` is the configuration section (`server` or `admin`) that messages name.
///
/// # Errors
/// [`ServeError::Address`] if `listen` is no address, [`ServeError::Open`] if it may not be opened.
pub fn bind_allowed(
    section: &'static str,
    listen: &str,
    has_token: bool,
    allow_anonymous: bool,
) -> Result<SocketAddr, ServeError> {
    let bad = |cause| ServeError::Address {
        key: format!("{section}.listen"),
        listen: listen.to_owned(),
        cause,
    };
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(bad)?.collect();
    let Some(first) = addresses.first() else {
        return Err(bad(std::io::Error::other("the name has no address")));
    };
    // A name may stand for several addresses; the one that is bound is the one that is judged.
    if first.ip().to_canonical().is_loopback() || has_token || allow_anonymous {
        Ok(*first)
    } else {
        Err(ServeError::Open {
            section,
            listen: listen.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_open_by_itself() {
        for loopback in [
            "127.0.0.1:0",
            "127.8.8.8:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "localhost:80",
        ] {
            assert!(
                bind_allowed("server", loopback, false, false).is_ok(),
                "{loopback}"
            );
        }
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[2001:db8::1]:80"] {
            let error = bind_allowed("admin", open, false, false).unwrap_err().to_string();
            assert!(
                error.contains("admin.listen") && error.contains("admin.bearer_token_file"),
                "{error}"
            );
            assert!(bind_allowed("admin", open, true, false).is_ok(), "{open}");
            assert!(bind_allowed("admin", open, false, true).is_ok(), "{open}");
        }
        let error = bind_allowed("server", "8080", true, true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("server.listen = \"8080\"") && error.contains("127.0.0.1:8080"),
            "{error}"
        );
    }

    fn hosts(listen: &str, bound: &str, configured: &[&str], token: bool, anonymous: bool) -> Hosts {
        let configured: Vec<String> = configured.iter().map(|h| (*h).to_owned()).collect();
        let bound = bound.parse().unwrap();
        Hosts::new("server", listen, bound, &configured, token, anonymous).unwrap()
    }

    fn admits(hosts: &Hosts, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        hosts
            .refuse(&Uri::from_static("/api/v1/status"), &headers)
            .is_none()
    }

    #[test]
    fn loopback_answers_to_its_own_names_only() {
        let local = hosts("127.0.0.1:8080", "127.0.0.1:8080", &[], false, false);
        for own in [
            "127.0.0.1:8080",
            "localhost:8080",
            "LocalHost.",
            "demo.localhost",
            "[::1]:8080",
            "[::1]",
            "10.1.2.3:9000",
        ] {
            assert!(admits(&local, own), "{own}");
        }
        for other in [
            "rebound.example:8080",
            "localhost.example",
            "127.0.0.1.example",
            "",
            "[::1",
        ] {
            assert!(!admits(&local, other), "{other}");
        }
        assert_eq!(local.refuse(&Uri::from_static("/"), &HeaderMap::new()), None);
        let absolute = Uri::from_static("http://rebound.example/api/v1/status");
        let reason = local.refuse(&absolute, &HeaderMap::new()).unwrap();
        assert!(
            reason.contains("rebound.example") && reason.contains("server.hosts"),
            "{reason}"
        );
        let named = hosts("desk.example:80", "127.0.0.1:80", &[], false, false);
        assert!(admits(&named, "desk.example") && !admits(&named, "other.example"));
    }

    #[test]
    fn configured_names_a_token_and_anonymous_callers_widen_it() {
        let proxied = hosts(
            "127.0.0.1:80",
            "127.0.0.1:80",
            &["Traffic.example.org"],
            false,
            true,
        );
        assert!(admits(&proxied, "traffic.example.org:443") && !admits(&proxied, "other.example"));
        assert!(admits(
            &hosts("127.0.0.1:80", "127.0.0.1:80", &["a.b"], true, false),
            "any.example"
        ));
        assert!(admits(
            &hosts("127.0.0.1:80", "127.0.0.1:80", &[], false, true),
            "any.example"
        ));
        assert!(admits(
            &hosts("0.0.0.0:80", "0.0.0.0:80", &[], false, true),
            "any.example"
        ));
        for bad in [
            "",
            "traffic.example.org:443",
            "https://traffic.example.org",
            "a b",
            "*",
        ] {
            let bound = "127.0.0.1:80".parse().unwrap();
            let error = Hosts::new("admin", "127.0.0.1:80", bound, &[bad.to_owned()], false, false);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("admin.hosts") && error.contains(bad), "{error}");
        }
    }

    fn token(text: &str) -> Result<Token, ServeError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        Token::read("server", &path)
    }

    #[test]
    fn a_token_admits_itself_only() {
        let token = token("0123456789abcdef\n").unwrap();
        assert!(token.admits(Some(b"Bearer 0123456789abcdef")));
        assert!(token.admits(Some(b"bearer 0123456789abcdef")));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdefg",
        ] {
            assert!(!token.admits(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!token.admits(Some(b"Basic 0123456789abcdef")));
        assert!(!token.admits(Some(b"0123456789abcdef")));
        assert!(!token.admits(None));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_bad_token_file_is_named() {
        let short = token("secret").unwrap_err().to_string();
        assert!(
            short.contains("server.bearer_token_file") && short.contains("at least 16"),
            "{short}"
        );
        assert!(
            token("0123456789 abcdef")
                .unwrap_err()
                .to_string()
                .contains("visible ASCII")
        );
        let missing = Token::read("admin", Path::new("/no/such/file"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("admin.bearer_token_file") && missing.contains("/no/such/file"),
            "{missing}"
        );
    }
}

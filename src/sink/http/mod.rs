//! What faces people and machines over HTTP: the public listener (page, API, live stream) and the admin
//! listener (metrics, probes).
//!
//! Nothing here touches the engine. The service hands what it publishes to a [`Board`]; readers see snapshots
//! of it.

mod access;
mod admin;
mod board;
mod connection;
mod events;
mod health;
mod openapi;
#[cfg(feature = "console")]
mod page;
mod problem;
mod public;
mod roads;
mod stream;

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use access::{ServeError, bind_allowed};
pub use board::{Board, Limits, PaneClose, RecordCounts, SourceStatus, Status, Taken};
pub use health::{Check, Health};
pub use openapi::openapi;
pub use roads::{Credited, Roads};

pub(crate) use access::is_host_name;
use access::{Hosts, Token};
use connection::{Bounds, Doors};

use crate::sink::metrics::Metrics;

/// Listener for people: page, API, live stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Address and port; anything but loopback needs `bearer_token_file` or `allow_anonymous`.
    pub listen: String,
    /// File that holds the bearer token that callers of the API must show.
    pub bearer_token_file: Option<PathBuf>,
    /// Serve anyone who can reach the address.
    pub allow_anonymous: bool,
    /// Host names, beside `localhost`, addresses and that of `listen`, under which a listener without a token
    /// answers; needed behind a proxy. Where it is empty, only a loopback listener without `allow_anonymous` asks.
    pub hosts: Vec<String>,
    /// Most connections open at once; others wait.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_max: u32,
    /// Most connections open at once from one address; more are closed at once. Behind a proxy all come from its
    /// address.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_peer_max: u32,
    /// Most live streams open at once; others are refused with 503.
    #[schemars(range(min = 0, max = 100_000))]
    pub stream_clients_max: u32,
    /// Seconds after which a request that has no answer yet is given up with 503; 5 s later the connection of one
    /// that has not even been sent whole is closed.
    #[schemars(range(min = 1, max = 600))]
    pub request_timeout_s: u32,
    /// Seconds after which a connection on which nothing moves is closed; more than 15, the interval of the
    /// sign of life on live streams.
    #[schemars(range(min = 20, max = 3600))]
    pub idle_timeout_s: u32,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            bearer_token_file: None,
            allow_anonymous: false,
            hosts: Vec::new(),
            connections_max: 1024,
            connections_per_peer_max: 512,
            stream_clients_max: 256,
            request_timeout_s: 10,
            idle_timeout_s: 60,
        }
    }
}

/// Listener for machines: metrics and probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port; anything but loopback needs `bearer_token_file` or `allow_anonymous`.
    pub listen: String,
    /// File that holds the bearer token that scrapers of `/metrics` must show; probes need none.
    pub bearer_token_file: Option<PathBuf>,
    /// Serve anyone who can reach the address.
    pub allow_anonymous: bool,
    /// Host names, beside `localhost`, addresses and that of `listen`, under which a listener without a token
    /// answers; needed behind a proxy. Where it is empty, only a loopback listener without `allow_anonymous` asks.
    pub hosts: Vec<String>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9470".to_owned(),
            bearer_token_file: None,
            allow_anonymous: false,
            hosts: Vec::new(),
        }
    }
}

/// Connections of the admin listener: a handful of scrapers and probes.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Time that a request may take to be sent, beside the time that its answer may take.
const SENDING: Duration = Duration::from_secs(5);

/// Both listeners, open until [`Handle::shutdown`] or until dropped.
#[derive(Debug)]
pub struct Handle {
    public: SocketAddr,
    admin: SocketAddr,
    // The time that open requests are given once this is set.
    stop: watch::Sender<Option<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Address of the public listener, with the port that was given for port 0.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Address of the admin listener, with the port that was given for port 0.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Takes no more connections, ends live streams, gives open requests `grace` to finish, and returns when
    /// all threads of the listeners have ended.
    pub fn shutdown(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        if let Some(thread) = self.thread.take() {
            self.stop.send_replace(Some(grace));
            if thread.join().is_err() {
                tracing::error!("the HTTP thread panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Opens both listeners and serves them on threads of their own.
///
/// # Errors
/// [`ServeError`] if an address is none, may not be opened, is in use or is refused, if a token file cannot be
/// used, or if a host name is none. Nothing is open then.
pub fn serve(
    public: &ServerSettings,
    admin: &AdminSettings,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Result<Handle, ServeError> {
    let token =
        |section, file: &Option<PathBuf>| file.as_deref().map(|path| Token::read(section, path)).transpose();
    let public_token = token("server", &public.bearer_token_file)?;
    let admin_token = token("admin", &admin.bearer_token_file)?;
    let public_listener = bind(
        "server",
        &public.listen,
        public_token.is_some(),
        public.allow_anonymous,
    )?;
    let admin_listener = bind(
        "admin",
        &admin.listen,
        admin_token.is_some(),
        admin.allow_anonymous,
    )?;
    let local = |section, listen: &str, listener: &TcpListener| {
        listener.local_addr().map_err(|cause| ServeError::Bind {
            section,
            listen: listen.to_owned(),
            cause,
        })
    };
    let public_address = local("server", &public.listen, &public_listener)?;
    let admin_address = local("admin", &admin.listen, &admin_listener)?;

    let public_hosts = Hosts::new(
        "server",
        &public.listen,
        public_address,
        &public.hosts,
        public_token.is_some(),
        public.allow_anonymous,
    )?;
    let admin_hosts = Hosts::new(
        "admin",
        &admin.listen,
        admin_address,
        &admin.hosts,
        admin_token.is_some(),
        admin.allow_anonymous,
    )?;

    let (stop, stopped) = watch::channel(None);
    let public_router = public::router(
        public,
        public_token,
        public_hosts,
        board,
        Arc::clone(&metrics),
        Arc::clone(&health),
        stopped.clone(),
    );
    let admin_router = admin::router(admin_token, admin_hosts, metrics, health);
    let bounds = Bounds {
        connections_max: public.connections_max as usize,
        per_peer_max: public.connections_per_peer_max as usize,
        idle_max: Duration::from_secs(u64::from(public.idle_timeout_s)),
        request_max: Duration::from_secs(u64::from(public.request_timeout_s)) + SENDING,
    };
    let admin_bounds = Bounds {
        connections_max: ADMIN_CONNECTIONS_MAX,
        per_peer_max: ADMIN_CONNECTIONS_MAX,
        ..bounds
    };

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_name("viaflux-http")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let doors = {
        // Registering a socket needs the reactor.
        let _entered = runtime.enter();
        let open = |listener, bounds| {
            tokio::net::TcpListener::from_std(listener)
                .map(|l| Doors::new(l, bounds))
                .map_err(ServeError::Runtime)
        };
        (
            open(public_listener, bounds)?,
            open(admin_listener, admin_bounds)?,
        )
    };
    let thread = std::thread::Builder::new()
        .name("viaflux-http".to_owned())
        .spawn(move || {
            runtime.block_on(run(doors.0, public_router, doors.1, admin_router, stopped));
            // What is left had its grace already.
            runtime.shutdown_timeout(Duration::from_millis(100));
        })
        .map_err(ServeError::Runtime)?;
    tracing::info!(public = %public_address, admin = %admin_address, "listening");
    Ok(Handle {
        public: public_address,
        admin: admin_address,
        stop,
        thread: Some(thread),
    })
}

fn bind(
    section: &'static str,
    listen: &str,
    has_token: bool,
    allow_anonymous: bool,
) -> Result<TcpListener, ServeError> {
    let address = bind_allowed(section, listen, has_token, allow_anonymous)?;
    let listener = TcpListener::bind(address).and_then(|l| {
        // The reactor needs it so.
        l.set_nonblocking(true)?;
        Ok(l)
    });
    listener.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AddrInUse => ServeError::InUse {
            section,
            listen: listen.to_owned(),
        },
        _ => ServeError::Bind {
            section,
            listen: listen.to_owned(),
            cause,
        },
    })
}

async fn run(
    public: Doors,
    public_router: Router,
    admin: Doors,
    admin_router: Router,
    mut stopped: watch::Receiver<Option<Duration>>,
) {
    let signal = |mut stopped: watch::Receiver<Option<Duration>>| async move {
        // An error means that the handle is gone, which is a stop as well.
        let _ = stopped.wait_for(Option::is_some).await;
    };
    let public = axum::serve(public, public_router).with_graceful_shutdown(signal(stopped.clone()));
    let admin = axum::serve(admin, admin_router).with_graceful_shutdown(signal(stopped.clone()));
    let both = async { tokio::join!(public.into_future(), admin.into_future()) };
    let out_of_time = async {
        let grace = stopped
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|grace| *grace);
        tokio::time::sleep(grace.unwrap_or_default()).await;
    };
    tokio::select! {
        (public, admin) = both => {
            for error in [public.err(), admin.err()].into_iter().flatten() {
                tracing::error!(%error, "a listener failed");
            }
        }
        () = out_of_time => {}
    }
}

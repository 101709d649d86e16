//! Connections that are bounded in number, over all and for each peer, and do not wait for ever for the other
//! side.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// What connections are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections open at once; others wait in the system's queue.
    pub(super) connections_max: usize,
    /// Connections of one address; more are closed at once, so that one cannot keep the others out.
    pub(super) per_peer_max: usize,
    /// Time in which a byte must go either way.
    pub(super) idle_max: Duration,
    /// Time from the first byte of a request to the first byte of its answer. A byte now and then does not extend
    /// it.
    pub(super) request_max: Duration,
}

/// Accepts connections within bounds.
#[derive(Debug)]
pub(super) struct Doors {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    peers: Arc<Peers>,
    bounds: Bounds,
}

impl Doors {
    pub(super) fn new(listener: TcpListener, bounds: Bounds) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(bounds.connections_max)),
            peers: Arc::default(),
            bounds,
        }
    }
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Peers {
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    /// Counts one more of `address`, unless it has `max`.
    fn admit(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Peer> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Peer {
            address,
            peers: Arc::clone(self),
        })
    }
}

/// One connection of an address, until dropped.
#[derive(Debug)]
struct Peer {
    address: IpAddr,
    peers: Arc<Peers>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl Listener for Doors {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Never closed, so there is always a permit to come.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address, peer) = loop {
            // axum's own accept retries, with a pause where the process is out of file descriptors.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Some(peer) = self.peers.admit(address.ip(), self.bounds.per_peer_max) {
                break (stream, address, peer);
            }
        };
        // Live events are small and should not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let now = Instant::now();
        let Bounds {
            idle_max,
            request_max,
            ..
        } = self.bounds;
        (
            Connection {
                stream,
                quiet: Box::pin(sleep_until(now + idle_max)),
                idle_max,
                // From the beginning: whoever connects has something to ask.
                asking: true,
                answer: Box::pin(sleep_until(now + request_max)),
                request_max,
                _permit: permit,
                _peer: peer,
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails with `TimedOut` when for `idle_max` no byte went either way. Live streams write at
/// least a comment more often than that, so silence means a client that sends nothing or takes nothing. It fails so
/// too when a request has not been answered within `request_max` of its first byte, which means that it has not been
/// sent whole: handlers have a shorter time limit of their own.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    quiet: Pin<Box<Sleep>>,
    idle_max: Duration,
    /// A request has begun of which no byte was answered.
    asking: bool,
    answer: Pin<Box<Sleep>>,
    request_max: Duration,
    _permit: Option<OwnedSemaphorePermit>,
    _peer: Peer,
}

impl Connection {
    fn guard<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.quiet.as_mut().reset(Instant::now() + self.idle_max);
            return done;
        }
        match self.quiet.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.asking && self.answer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && !self.asking {
            self.asking = true;
            let due = Instant::now() + self.request_max;
            self.answer.as_mut().reset(due);
        }
        self.guard(cx, done)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.asking &= !done.is_ready();
        self.guard(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.asking &= !done.is_ready();
        self.guard(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A TCP flush does nothing and is always ready: it must not count as progress.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

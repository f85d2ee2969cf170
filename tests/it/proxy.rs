//! A TCP proxy on loopback that can be taken away and put back at the same port, so that a test's relay or bank is
//! refused for a while without losing its state.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The proxy. It starts open.
pub(crate) struct Proxy {
    address: SocketAddr,
    target: SocketAddr,
    /// Bound to the port and never listening: while the proxy is away, connections are refused and nobody else gets the
    /// port.
    _reserved: TcpSocket,
    /// Connections so far.
    connections: Arc<AtomicU64>,
    /// Ends the listener.
    open: Option<(CancellationToken, oneshot::Receiver<()>)>,
    /// Ends the connections that are open now.
    cut: Arc<Mutex<CancellationToken>>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let reserved = socket();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reserved.local_addr().unwrap();
        let mut proxy =
            Self { address, target, _reserved: reserved, connections: Arc::default(), open: None, cut: Arc::default() };
        proxy.comes_back();
        proxy
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Refuses connections from now on; those that are open go on.
    pub(crate) async fn refuses(&mut self) {
        if let Some((end, closed)) = self.open.take() {
            end.cancel();
            closed.await.unwrap();
        }
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub(crate) async fn goes_away(&mut self) {
        // The cut comes first: after the first refusal nothing is answered any more.
        self.cut();
        self.refuses().await;
        // One that came in between is cut too.
        self.cut();
    }

    /// Cuts the connections that are open now; new ones are accepted.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    pub(crate) fn comes_back(&mut self) {
        let socket = socket();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let end = CancellationToken::new();
        let (closing, closed) = oneshot::channel();
        let (target, connections) = (self.target, self.connections.clone());
        let (ended, cut) = (end.clone(), self.cut.clone());
        tokio::spawn(async move {
            ended.run_until_cancelled(accept(listener, target, connections, cut)).await;
            // The listener is dropped: from here on connections are refused.
            let _ = closing.send(());
        });
        self.open = Some((end, closed));
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    connections: Arc<AtomicU64>,
    cut: Arc<Mutex<CancellationToken>>,
) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let cut = cut.lock().unwrap().clone();
        tokio::spawn(async move { cut.run_until_cancelled(carry(client, target)).await });
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some((end, _)) = &self.open {
            end.cancel();
        }
        self.cut();
    }
}

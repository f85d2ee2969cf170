//! A TCP proxy on loopback that a test can close: an address at which nothing listens, and connections that end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// The proxy; its port stays the same while it is closed.
pub(crate) struct Gate {
    target: SocketAddr,
    port: u16,
    /// Ends the listener of the present opening.
    listening: Mutex<CancellationToken>,
    /// Ends the connections that are open now.
    connections: Arc<Mutex<CancellationToken>>,
}

impl Gate {
    /// An open gate to `target`.
    pub(crate) async fn open(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gate = Self { target, port, listening: Mutex::default(), connections: Arc::default() };
        gate.serve(listener);
        gate
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on connections are refused, and those that are open end.
    pub(crate) fn close(&self) {
        self.listening.lock().unwrap().cancel();
        self.cut();
    }

    /// Ends the connections that are open now.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.connections.lock().unwrap()).cancel();
    }

    /// Accepts connections again.
    pub(crate) async fn reopen(&self) {
        let listener = crate::harness::until("the port to be free", async || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind((Ipv4Addr::LOCALHOST, self.port).into()).ok()?;
            socket.listen(1024).ok()
        })
        .await;
        *self.listening.lock().unwrap() = CancellationToken::new();
        self.serve(listener);
    }

    fn serve(&self, listener: TcpListener) {
        let (target, end) = (self.target, self.listening.lock().unwrap().clone());
        let accepting = accept(listener, target, self.connections.clone());
        tokio::spawn(end.run_until_cancelled_owned(accepting));
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, connections: Arc<Mutex<CancellationToken>>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let end = connections.lock().unwrap().clone();
        tokio::spawn(end.run_until_cancelled_owned(async move {
            if let Ok(mut server) = TcpStream::connect(target).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }));
    }
}

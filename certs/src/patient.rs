//! Connections that have to say something in time. A server waits for the first bytes of a connection, to see which HTTP is spoken, before
//! its own deadline for a header begins; whoever connects and is silent would be waited for without end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum_server::accept::Accept;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// Accepts as another acceptor does; what it gives has so long for its first bytes.
#[derive(Debug, Clone)]
pub struct Patiently<A> {
    acceptor: A,
    patience: Duration,
}

impl<A> Patiently<A> {
    /// Waits so long after the acceptor is done with a connection.
    pub const fn new(acceptor: A, patience: Duration) -> Self {
        Self { acceptor, patience }
    }
}

impl<I, S, A> Accept<I, S> for Patiently<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = Patient<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let (accepting, patience) = (self.acceptor.accept(stream, service), self.patience);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            Ok((Patient::new(stream, patience), service))
        })
    }
}

/// A connection whose first bytes have to come in time.
#[derive(Debug)]
pub struct Patient<I> {
    stream: I,
    read: usize,
    /// Until [`PREFACE`] bytes were read.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<I> Patient<I> {
    fn new(stream: I, patience: Duration) -> Self {
        Self { stream, read: 0, patience: Some(Box::pin(tokio::time::sleep(patience))) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read = self.read.saturating_add(buffer.filled().len() - before);
        if self.read >= PREFACE {
            self.patience = None;
        } else if read.is_pending()
            && self.patience.as_mut().is_some_and(|patience| patience.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Bytes of HTTP/2's preface. Source: RFC 9113, section 3.4.
const PREFACE: usize = 24;

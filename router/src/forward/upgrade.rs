//! After 101: bytes both ways until both sides are done, or nothing moves for too long.
//!
//! WebSocket and SPDY/3.1 (kubectl exec and port-forward) come this way. Nothing the client sends
//! after its request's head reaches the endpoint before the endpoint has agreed to switch.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use super::flow::Flow;
use super::log::Transaction;
use crate::http1::body::BodyDecoder;
use crate::snapshot::Settings;
use crate::upstream::Lease;
use crate::worker::Worker;
use crate::worker::timers::Timer;

/// One direction: a flow, and whether its end has been passed on.
struct Direction {
    flow: Flow,
    shut: bool,
}

/// Carries bytes both ways. `left` is what either side had sent behind the heads.
pub(crate) async fn tunnel<C>(
    client: &mut C,
    mut lease: Lease,
    left: (BytesMut, BytesMut),
    timer: &Timer,
    settings: &Settings,
    worker: &Rc<Worker>,
    log: &mut Transaction,
) where
    C: AsyncBufRead + AsyncWrite + Unpin,
{
    worker.metrics.upgrades.increment();
    worker.metrics.upgrades_open.increment();
    let mut up = Direction::new(left.0, worker.buffers.take());
    let mut down = Direction::new(left.1, worker.buffers.take());
    timer.set(settings.timeouts.upgraded_idle);
    poll_fn(|cx| {
        let mut progress = false;
        loop {
            let moved = match (
                up.poll(client, &mut lease.stream, cx),
                down.poll(&mut lease.stream, client, cx),
            ) {
                (Ok(up), Ok(down)) => up | down,
                // A reset on either side ends both.
                _ => return Poll::Ready(()),
            };
            if up.shut && down.shut {
                return Poll::Ready(());
            }
            if !moved {
                break;
            }
            progress = true;
        }
        if progress {
            timer.set(settings.timeouts.upgraded_idle);
        }
        timer.poll_expired(cx)
    })
    .await;
    log.transferred(None, up.flow.body_bytes, down.flow.body_bytes);
    worker.metrics.upgrades_open.decrement();
}

impl Direction {
    fn new(inbox: BytesMut, outbox: BytesMut) -> Self {
        let mut flow = Flow::new(inbox, outbox);
        flow.begin(BodyDecoder::until_close(), super::flow::Announced::Plain);
        Self { flow, shut: false }
    }

    /// Moves what can be moved. True if anything was.
    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Result<bool, ()> {
        if self.shut {
            return Ok(false);
        }
        let mut moved = false;
        if self.flow.wants_input() {
            match self.flow.poll_read(from, cx) {
                Poll::Ready(Ok(0)) => {
                    self.flow.end_of_input().map_err(|_| ())?;
                    moved = true;
                }
                Poll::Ready(Ok(_)) => moved = true,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        self.flow.decode().map_err(|_| ())?;
        if self.flow.is_sending() {
            match self.flow.poll_send(to, cx) {
                Poll::Ready(Ok(sent)) => moved |= sent,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        if self.flow.is_decoded() && !self.flow.is_sending() {
            match Pin::new(to).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    self.shut = true;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        Ok(moved)
    }
}

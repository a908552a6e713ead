//! An answer's body: in pieces, with what is held until it has been sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::activity::OpenRequest;
use crate::registry::auth::guard::Held;

/// What is handed to HTTP/2 at a time. It waits for room in the client's window before it takes a
/// piece, but keeps the piece as a whole.
const PIECE: usize = 16 << 10;

/// The body of an answer.
pub(super) struct AnswerBody {
    inner: Body,
    /// What is left of the last piece that `inner` gave.
    rest: Bytes,
    /// A watch ends when this does.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    open: OpenRequest,
    _held: Option<Held>,
}

impl AnswerBody {
    /// An answer that ends by itself.
    pub(super) fn new(inner: Body, open: OpenRequest, held: Option<Held>) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            end: None,
            open,
            _held: held,
        }
    }

    /// An answer that is over, as if it had ended by itself, when `end` is.
    pub(super) fn until(mut self, end: impl Future<Output = ()> + Send + 'static) -> Self {
        self.end = Some(Box::pin(end));
        self
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            if let Some(end) = &mut this.end
                && end.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(None);
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Poll::Pending => {
                    this.open.is_waited_for();
                    return Poll::Pending;
                }
                other => return other,
            }
        }
        this.open.progresses();
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::server::activity::Activity;
    use http_body::Body as _;
    use http_body_util::BodyExt as _;
    use tokio::sync::oneshot;

    fn body(inner: Body) -> AnswerBody {
        AnswerBody::new(inner, Activity::new().begin(), None)
    }

    #[tokio::test]
    async fn a_long_answer_comes_in_pieces_and_knows_its_length() {
        let whole: Vec<u8> = (0..PIECE * 2 + 5).map(|n| n as u8).collect();
        let mut body = body(Body::from(whole.clone()));
        let mut left = whole.len();
        let mut pieces = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            left -= piece.len();
            pieces.push(piece);
        }
        let lengths: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PIECE, PIECE, 5]);
        assert_eq!(pieces.concat(), whole);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_ends_cleanly_when_it_is_told_to() {
        let (stop, stopped) = oneshot::channel::<()>();
        let endless = tokio_stream::pending::<Result<Bytes, std::io::Error>>();
        let body = body(Body::from_stream(endless)).until(async { drop(stopped.await) });
        let reading = tokio::spawn(body.collect());
        stop.send(()).unwrap();
        let read = reading.await.unwrap().unwrap();
        assert!(read.to_bytes().is_empty());
    }
}

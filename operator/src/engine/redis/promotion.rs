//! A target that is made a replica is made a primary again, whatever happens in between. Talks to the server.

use std::time::{Duration, Instant};

use holdfast_crds::Reason;
use tracing::error;

use super::link::Login;
use super::resp::Reply;
use super::server::{Server, panicked};
use crate::task::Failure;

/// How long it is tried. A worker that is told to end has 30 seconds, and other things to do in them.
const LIMIT: Duration = Duration::from_secs(12);
/// How long to wait before the next try, such as while the target loads.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Makes a target a primary again when it is dropped.
pub(super) struct Promotion {
    login: Option<Login>,
}

impl Promotion {
    /// From now on.
    pub fn of(login: &Login) -> Self {
        Self { login: Some(login.clone()) }
    }

    /// The target never became a replica.
    pub fn forget(mut self) {
        self.login = None;
    }

    /// Does it now, and sees that it is done.
    pub async fn perform(mut self, server: &mut Server) -> Result<(), Failure> {
        let Some(login) = self.login.clone() else { return Ok(()) };
        let promoted =
            server.with(|link| Ok(matches!(link.call(&["REPLICAOF", "NO", "ONE"])?, Reply::Simple(_)))).await;
        if !matches!(promoted, Ok(true)) {
            let again = move || promote(&login);
            tokio::task::spawn_blocking(again).await.map_err(|error| panicked(&error))??;
            *server = Server::connect(&server.login).await?;
        }
        // Dropped before this, it is done once more, which does no harm.
        self.login = None;
        let facts = server.facts().await?;
        if facts.is_replica() {
            return Err(left_behind(&server.login, "it says that it still is one"));
        }
        Ok(())
    }
}

impl Drop for Promotion {
    fn drop(&mut self) {
        // The future was dropped: nothing can be awaited any more, and the target must not be left as it is.
        if let Some(login) = self.login.take()
            && let Err(failure) = promote(&login)
        {
            error!("{failure}");
        }
    }
}

/// Tries until it is done or the time is over. Blocks.
fn promote(login: &Login) -> Result<(), Failure> {
    let (start, hurried) = (Instant::now(), login.hurried());
    loop {
        let tried =
            hurried.connect().and_then(|mut link| link.must(&["REPLICAOF", "NO", "ONE"], Reason::RestoreFailed));
        match tried {
            Ok(_) => return Ok(()),
            Err(failure) if start.elapsed() > LIMIT => return Err(left_behind(login, &failure.message)),
            Err(_) => std::thread::sleep(TRY_AGAIN),
        }
    }
}

fn left_behind(login: &Login, why: &str) -> Failure {
    Failure::new(
        Reason::RestoreFailed,
        format!(
            "redis at {}: it could not be made a primary again and refuses writes until `redis-cli REPLICAOF NO ONE` is run there: {why}",
            login.address
        ),
    )
}

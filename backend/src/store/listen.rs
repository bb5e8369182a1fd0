//! Notifications of changed configurations.

use std::time::Duration;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator as _;

use super::connector::{Connection, Connector, Purpose};
use super::pool::bury;
use super::{Store, StoreError};

/// How long a round trip may take before the connection counts as dead.
const ROUND_TRIP_LIMIT: Duration = Duration::from_secs(2);

/// Whose configuration changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// This site's.
    Site(i64),
    /// Anybody's.
    All,
}

/// A connection on which PostgreSQL says whose configuration changed.
pub struct Listener {
    connector: Connector,
    connection: Option<Connection>,
}

impl Store {
    /// Opens a connection of its own and listens.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no database.
    pub fn listen(&self) -> Result<Listener, StoreError> {
        let mut connection = self.connector.connect(Purpose::Listen)?;
        connection.client.batch_execute("LISTEN av_config")?;
        Ok(Listener {
            connector: self.connector.clone(),
            connection: Some(connection),
        })
    }
}

impl Listener {
    /// Asks PostgreSQL for a sign of life and takes the notifications that
    /// came before it. PostgreSQL sends what is pending before it declares
    /// itself ready, so afterwards every change is known that was committed
    /// before this call.
    ///
    /// # Errors
    /// When the connection is dead, gives no answer within two seconds, or
    /// leads to a server that another one was promoted to follow.
    pub fn round_trip(&mut self) -> Result<Vec<Changed>, StoreError> {
        let client = self.client()?;
        client.is_valid(ROUND_TRIP_LIMIT)?;
        let mut changes = Vec::new();
        let mut notifications = client.notifications();
        let mut arrived = notifications.iter();
        while let Some(notification) = arrived.next()? {
            changes.push(changed(notification.payload()));
        }
        Ok(changes)
    }

    /// Waits for a notification, at most so long.
    ///
    /// # Errors
    /// When the connection is dead.
    pub fn wait(&mut self, limit: Duration) -> Result<Vec<Changed>, StoreError> {
        let client = self.client()?;
        let change = client
            .notifications()
            .timeout_iter(limit)
            .next()?
            .map(|notification| changed(notification.payload()));
        if change.is_none() && client.is_closed() {
            return Err(StoreError::Unavailable(
                "the notification connection was closed".to_owned(),
            ));
        }
        Ok(change.into_iter().collect())
    }

    fn client(&mut self) -> Result<&mut Client, StoreError> {
        let connection = self
            .connection
            .as_mut()
            .ok_or_else(|| StoreError::Unavailable("the connection is gone".to_owned()))?;
        if !self.connector.is_current(connection) {
            return Err(StoreError::Unavailable(
                "another server was promoted".to_owned(),
            ));
        }
        Ok(&mut connection.client)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            bury(connection.client);
        }
    }
}

fn changed(payload: &str) -> Changed {
    payload.parse().map_or(Changed::All, Changed::Site)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_no_id_means_everybody() {
        assert_eq!(changed("12"), Changed::Site(12));
        assert_eq!(changed("*"), Changed::All);
        assert_eq!(changed(""), Changed::All);
    }
}

//! Secrets that every process derives from the configured token, so that none has to be kept.

use std::sync::OnceLock;

use argon2::Argon2;

const KEY_BYTES: usize = 32;

/// A key of one purpose; nothing where the token is empty.
pub(super) struct Derived {
    token: String,
    purpose: &'static [u8],
    key: OnceLock<Option<[u8; KEY_BYTES]>>,
}

impl Derived {
    /// Nothing is derived before it is asked for. `purpose` makes the key another one than any that is
    /// derived for something else.
    pub(super) fn new(token: String, purpose: &'static [u8]) -> Self {
        Self { token, purpose, key: OnceLock::new() }
    }

    /// The key is stretched, since what is made with it could otherwise be used to guess a short
    /// configured token quickly.
    pub(super) fn key(&self) -> Option<&[u8; KEY_BYTES]> {
        let derive = || {
            let mut key = [0; KEY_BYTES];
            let derived = Argon2::default().hash_password_into(self.token.as_bytes(), self.purpose, &mut key);
            derived.ok().filter(|()| !self.token.is_empty()).map(|()| key)
        };
        self.key.get_or_init(derive).as_ref()
    }
}

//! Members, their one-time codes, and the sensors that were enrolled with them.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uplink::{Certified, MemberId, RedeemError, SensorId};

use super::audit::{Event, Note, note};
use super::{Database, DatabaseError, signed, unsigned};
use crate::lake::hex;

/// Longest member identifier made from a name: leaves room for a number here and a sensor's suffix.
const SLUG_LENGTH_MAX: usize = 48;
/// Longest member name, characters: it is a heading of the report.
pub const NAME_LENGTH_MAX: usize = 200;
/// The identifier of a member whose name has no ASCII letter and no digit.
const SLUG_OF_OTHER_SCRIPTS: &str = "member";
/// Members of one name.
const SAME_NAME_MAX: u32 = 1_000;

/// An organisation that runs sensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identifier, made from the name.
    pub id: MemberId,
    /// Name as given.
    pub name: String,
    /// Its address ranges, as CIDR texts; empty: the private ranges count as its own.
    pub own_prefixes: Vec<String>,
    /// When it was added, milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// An enrolled sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// Identifier, made at enrolment.
    pub id: SensorId,
    /// Whose it is.
    pub member: MemberId,
    /// When it was enrolled, milliseconds since the Unix epoch.
    pub enrolled_ms: u64,
    /// When it was revoked, if it was.
    pub revoked_ms: Option<u64>,
    /// When its newest certificate begins, if that is known.
    pub certificate_begins_ms: Option<u64>,
    /// When its newest certificate ends, if that is known.
    pub certificate_ends_ms: Option<u64>,
    /// When its certificate was renewed last, if it was.
    pub renewed_ms: Option<u64>,
}

/// Who a redeemed code stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// The member that the code was made for.
    pub member: MemberId,
    /// The sensor that it made.
    pub sensor: SensorId,
}

fn corrupt(what: &'static str, value: &(impl ToString + ?Sized)) -> DatabaseError {
    DatabaseError::Corrupt { what, value: value.to_string() }
}

fn member_id(text: &str) -> Result<MemberId, DatabaseError> {
    MemberId::parse(text).map_err(|_why| corrupt("a member identifier", text))
}

fn sensor_id(text: &str) -> Result<SensorId, DatabaseError> {
    SensorId::parse(text).map_err(|_why| corrupt("a sensor identifier", text))
}

/// Lower-case letters and digits, anything else as one hyphen.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for character in name.chars().map(|character| character.to_ascii_lowercase()) {
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == SLUG_LENGTH_MAX {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { SLUG_OF_OTHER_SCRIPTS.to_owned() } else { slug.to_owned() }
}

/// A name is printed on terminals and in reports: nothing in it may move the cursor, turn the direction of writing
/// or be invisible.
fn check_name(name: &str) -> Result<(), DatabaseError> {
    let bad = |fault| DatabaseError::MemberName { name: name.chars().take(40).collect(), fault };
    if name.chars().count() > NAME_LENGTH_MAX {
        return Err(bad("is too long"));
    }
    if name.chars().any(is_unprintable) {
        return Err(bad("has a character that cannot be printed"));
    }
    if !name.chars().any(char::is_alphanumeric) {
        return Err(bad("has no letter and no digit"));
    }
    Ok(())
}

fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

fn member(row: &SqliteRow) -> Result<Member, DatabaseError> {
    let prefixes: String = row.try_get("own_prefixes")?;
    Ok(Member {
        id: member_id(row.try_get("id")?)?,
        name: row.try_get("name")?,
        own_prefixes: serde_json::from_str(&prefixes)
            .map_err(|_syntax| corrupt("a list of prefixes", &prefixes))?,
        created_ms: unsigned("a time", row.try_get("created_ms")?)?,
    })
}

fn sensor(row: &SqliteRow) -> Result<Sensor, DatabaseError> {
    let known = |column: &'static str| -> Result<Option<u64>, DatabaseError> {
        let ms: Option<i64> = row.try_get(column)?;
        ms.map(|ms| unsigned("a time", ms)).transpose()
    };
    Ok(Sensor {
        id: sensor_id(row.try_get("id")?)?,
        member: member_id(row.try_get("member")?)?,
        enrolled_ms: unsigned("a time", row.try_get("enrolled_ms")?)?,
        revoked_ms: known("revoked_ms")?,
        certificate_begins_ms: known("certificate_begins_ms")?,
        certificate_ends_ms: known("certificate_ends_ms")?,
        renewed_ms: known("renewed_ms")?,
    })
}

/// What tells a code from others, without telling the code.
pub(crate) fn told(secret_hash: &[u8; 32]) -> String {
    format!("code whose hash begins {}", hex(&secret_hash[..4]))
}

impl Database {
    /// Adds a member under an identifier made from its name; a second one of the same name gets a number.
    ///
    /// # Errors
    ///
    /// When the name cannot be printed, a prefix is everything, or the database refuses.
    pub async fn add_member(
        &self,
        name: &str,
        own_prefixes: &[String],
        now_ms: u64,
    ) -> Result<Member, DatabaseError> {
        let name = name.trim();
        check_name(name)?;
        if let Some(all) = own_prefixes.iter().find(|prefix| prefix.ends_with("/0")) {
            return Err(DatabaseError::OwnPrefix(all.clone()));
        }
        let slug = slug(name);
        let prefixes = serde_json::Value::from(own_prefixes).to_string();
        for number in 1..=SAME_NAME_MAX {
            let id = if number == 1 { slug.clone() } else { format!("{slug}-{number}") };
            let done = sqlx::query(
                "INSERT INTO members (id, name, own_prefixes, created_ms) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(&id)
            .bind(name)
            .bind(&prefixes)
            .bind(signed(now_ms))
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 1 {
                return self.member(&id).await;
            }
        }
        Err(corrupt("a name of fewer than 1,000 members", name))
    }

    /// One member.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub async fn member(&self, id: &str) -> Result<Member, DatabaseError> {
        let row = sqlx::query("SELECT * FROM members WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map_or_else(|| Err(DatabaseError::UnknownMember(id.to_owned())), member)
    }

    /// All members, by identifier.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn members(&self) -> Result<Vec<Member>, DatabaseError> {
        let rows = sqlx::query("SELECT * FROM members ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter().map(member).collect()
    }

    /// All sensors, by identifier.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn sensors(&self) -> Result<Vec<Sensor>, DatabaseError> {
        let rows = sqlx::query("SELECT * FROM sensors ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter().map(sensor).collect()
    }

    /// Remembers the hash of a code that was made for a member.
    ///
    /// # Errors
    ///
    /// When the database refuses, for one because there is no such member.
    pub async fn add_code(
        &self,
        member: &MemberId,
        secret_hash: [u8; 32],
        now_ms: u64,
        expires_ms: u64,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO enrolment_codes (secret_hash, member, created_ms, expires_ms) \
             VALUES (?, ?, ?, ?)",
        )
        .bind(secret_hash.as_slice())
        .bind(member.as_str())
        .bind(signed(now_ms))
        .bind(signed(expires_ms))
        .execute(&mut *transaction)
        .await?;
        let made = Note {
            event: Event::CodeMade,
            member: Some(member.as_str()),
            sensor: None,
            remote: None,
            detail: told(&secret_hash),
        };
        note(&mut transaction, now_ms, &made).await?;
        Ok(transaction.commit().await?)
    }

    /// Exchanges a code for names, once; with the same key again, because an answer can get lost.
    ///
    /// # Errors
    ///
    /// Says whether the code is unknown, expired or used by another key.
    pub async fn redeem(
        &self,
        secret_hash: [u8; 32],
        public_key: [u8; 32],
        now_ms: u64,
    ) -> Result<Redeemed, RedeemError> {
        let internal = |error: DatabaseError| {
            tracing::error!(%error, "a code could not be looked up");
            RedeemError::Internal("try again later".to_owned())
        };
        self.redeem_inner(secret_hash, public_key, now_ms).await.map_err(internal)?
    }

    async fn redeem_inner(
        &self,
        secret_hash: [u8; 32],
        public_key: [u8; 32],
        now_ms: u64,
    ) -> Result<Result<Redeemed, RedeemError>, DatabaseError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "SELECT c.member, c.expires_ms, c.used_ms, s.id AS sensor, s.public_key, s.revoked_ms \
             FROM enrolment_codes c LEFT JOIN sensors s ON s.id = c.sensor WHERE c.secret_hash = ?",
        )
        .bind(secret_hash.as_slice())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(Err(RedeemError::Unknown)) };
        let member = member_id(row.try_get("member")?)?;
        if row.try_get::<Option<i64>, _>("used_ms")?.is_some() {
            let key: Option<Vec<u8>> = row.try_get("public_key")?;
            let sensor: Option<String> = row.try_get("sensor")?;
            if row.try_get::<Option<i64>, _>("revoked_ms")?.is_some() {
                return Ok(Err(RedeemError::Key));
            }
            return Ok(match sensor {
                Some(sensor) if key.as_deref() == Some(public_key.as_slice()) => {
                    Ok(Redeemed { member, sensor: sensor_id(&sensor)? })
                }
                _ => Err(RedeemError::Used),
            });
        }
        if unsigned("a time", row.try_get("expires_ms")?)? <= now_ms {
            return Ok(Err(RedeemError::Expired));
        }
        // A key names one sensor: a box that enrols again with the key it has, keeps its name.
        let held = sqlx::query("SELECT * FROM sensors WHERE public_key = ?")
            .bind(public_key.as_slice())
            .fetch_optional(&mut *transaction)
            .await?;
        let (sensor, event) = match held.as_ref().map(sensor).transpose()? {
            Some(held) if held.member == member && held.revoked_ms.is_none() => {
                (held.id, Event::EnrolledAgain)
            }
            Some(_) => return Ok(Err(RedeemError::Key)),
            None => {
                let sensor = SensorId::parse(&format!("{member}-{}", hex(&public_key[..4])))
                    .map_err(|why| corrupt("a sensor identifier", &why))?;
                sqlx::query(
                    "INSERT INTO sensors (id, member, public_key, enrolled_ms) VALUES (?, ?, ?, ?)",
                )
                .bind(sensor.as_str())
                .bind(member.as_str())
                .bind(public_key.as_slice())
                .bind(signed(now_ms))
                .execute(&mut *transaction)
                .await?;
                (sensor, Event::Enrolled)
            }
        };
        sqlx::query("UPDATE enrolment_codes SET used_ms = ?, sensor = ? WHERE secret_hash = ?")
            .bind(signed(now_ms))
            .bind(sensor.as_str())
            .bind(secret_hash.as_slice())
            .execute(&mut *transaction)
            .await?;
        let enrolled = Note {
            event,
            member: Some(member.as_str()),
            sensor: Some(sensor.as_str()),
            remote: None,
            detail: told(&secret_hash),
        };
        note(&mut transaction, now_ms, &enrolled).await?;
        transaction.commit().await?;
        Ok(Ok(Redeemed { member, sensor }))
    }

    /// Whether a sensor with these names and this key may deliver.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn admitted(
        &self,
        member: &MemberId,
        sensor: &SensorId,
        public_key: [u8; 32],
    ) -> Result<bool, DatabaseError> {
        let found: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sensors \
             WHERE id = ? AND member = ? AND public_key = ? AND revoked_ms IS NULL",
        )
        .bind(sensor.as_str())
        .bind(member.as_str())
        .bind(public_key.as_slice())
        .fetch_one(&self.pool)
        .await?;
        Ok(found == 1)
    }

    /// Notes how long the newest certificate of a sensor is valid.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn note_certificate(
        &self,
        sensor: &SensorId,
        certified: Certified,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        let Certified { validity, is_renewal } = certified;
        let ms = |unix_s: u64| signed(unix_s.saturating_mul(1000));
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "UPDATE sensors SET certificate_begins_ms = ?, certificate_ends_ms = ?, \
             renewed_ms = coalesce(?, renewed_ms) WHERE id = ?",
        )
        .bind(ms(validity.begins_unix_s))
        .bind(ms(validity.ends_unix_s))
        .bind(is_renewal.then_some(signed(now_ms)))
        .bind(sensor.as_str())
        .execute(&mut *transaction)
        .await?;
        if is_renewal {
            let renewed = Note {
                event: Event::Renewed,
                member: None,
                sensor: Some(sensor.as_str()),
                remote: None,
                detail: String::new(),
            };
            note(&mut transaction, now_ms, &renewed).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Ends a sensor's right to deliver. A running backend asks for each batch, and each second for open connections.
    /// Gives when that was: now, or at an earlier time.
    ///
    /// # Errors
    ///
    /// When there is no such sensor.
    pub async fn revoke_sensor(&self, sensor: &str, now_ms: u64) -> Result<u64, DatabaseError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query("SELECT * FROM sensors WHERE id = ?")
            .bind(sensor)
            .fetch_optional(&mut *transaction)
            .await?;
        let row = row.ok_or_else(|| DatabaseError::UnknownSensor(sensor.to_owned()))?;
        let held = self::sensor(&row)?;
        if let Some(earlier_ms) = held.revoked_ms {
            return Ok(earlier_ms);
        }
        sqlx::query("UPDATE sensors SET revoked_ms = ? WHERE id = ?")
            .bind(signed(now_ms))
            .bind(sensor)
            .execute(&mut *transaction)
            .await?;
        let revoked = Note {
            event: Event::Revoked,
            member: Some(held.member.as_str()),
            sensor: Some(sensor),
            remote: None,
            detail: String::new(),
        };
        note(&mut transaction, now_ms, &revoked).await?;
        transaction.commit().await?;
        Ok(now_ms)
    }

    /// All sensors that were revoked.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn revoked(&self) -> Result<Vec<SensorId>, DatabaseError> {
        let names: Vec<String> =
            sqlx::query_scalar("SELECT id FROM sensors WHERE revoked_ms IS NOT NULL ORDER BY id")
                .fetch_all(&self.pool)
                .await?;
        names.iter().map(|name| sensor_id(name)).collect()
    }
}

//! A one-time code works once, in time, for one key.

use anyhow::Result;
use uplink::{Intake, RedeemError};

use crate::lab::Lab;

const HASH: [u8; 32] = [1; 32];
const KEY: [u8; 32] = [2; 32];

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_redeemed_once_and_again_only_by_the_same_key() -> Result<()> {
    let lab = Lab::new().await?;
    let database = lab.database().await?;
    let member = database.member("town-hall").await?.id;
    database.add_code(&member, HASH, 1_000, 2_000).await?;

    let unknown = database.redeem([9; 32], KEY, 1_500).await;
    assert_eq!(unknown, Err(RedeemError::Unknown));
    let expired = database.redeem(HASH, KEY, 2_000).await;
    assert_eq!(expired, Err(RedeemError::Expired));
    let redeemed = database.redeem(HASH, KEY, 1_999).await?;
    assert_eq!(redeemed.sensor.as_str(), "town-hall-02020202");
    // The answer was lost: the same box asks again, even when the code would have expired meanwhile.
    assert_eq!(database.redeem(HASH, KEY, 9_999).await?, redeemed);
    assert_eq!(database.redeem(HASH, [3; 32], 1_999).await, Err(RedeemError::Used));
    assert_eq!(database.sensors().await?.len(), 1);

    assert!(database.admitted(&redeemed.member, &redeemed.sensor, KEY).await?);
    assert!(!database.admitted(&redeemed.member, &redeemed.sensor, [3; 32]).await?);
    database.revoke_sensor(redeemed.sensor.as_str(), 3_000).await?;
    assert!(!database.admitted(&redeemed.member, &redeemed.sensor, KEY).await?);
    let nobody = database.revoke_sensor("nobody", 1).await.expect_err("there is no such sensor");
    assert_eq!(nobody.to_string(), "there is no sensor \"nobody\"");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_gives_a_key_its_own_sensor_again_but_not_a_revoked_one_or_anothers() -> Result<()> {
    let lab = Lab::new().await?;
    let database = lab.database().await?;
    let member = database.member("town-hall").await?.id;
    let other = database.add_member("Library", &[], 1).await?.id;
    let codes = [[1; 32], [2; 32], [3; 32], [4; 32]];
    for (hash, member) in codes.iter().zip([&member, &member, &other, &member]) {
        database.add_code(member, *hash, 1_000, 9_000).await?;
    }
    let first = database.redeem(codes[0], KEY, 2_000).await?;
    // Its certificate has expired meanwhile.
    assert_eq!(database.redeem(codes[1], KEY, 3_000).await?, first);
    assert_eq!(database.redeem(codes[1], [9; 32], 3_000).await, Err(RedeemError::Used));
    // A code of another member does not make the sensor change hands.
    assert_eq!(database.redeem(codes[2], KEY, 3_000).await, Err(RedeemError::Key));
    assert_eq!(database.revoked().await?, Vec::new());
    assert_eq!(database.revoke_sensor(first.sensor.as_str(), 4_000).await?, 4_000);
    assert_eq!(database.revoke_sensor(first.sensor.as_str(), 5_000).await?, 4_000);
    assert_eq!(database.revoked().await?, std::slice::from_ref(&first.sensor));
    for hash in [codes[0], codes[1], codes[3]] {
        assert_eq!(database.redeem(hash, KEY, 6_000).await, Err(RedeemError::Key));
    }
    // The code is still good for another key.
    assert_ne!(database.redeem(codes[3], [9; 32], 6_000).await?.sensor, first.sensor);

    let audit = database.audit(100).await?;
    let events: Vec<(u64, &str)> =
        audit.iter().map(|line| (line.at_ms, line.event.as_str())).collect();
    let made = (1_000, "code made");
    let wanted = [
        made,
        made,
        made,
        made,
        (2_000, "enrolled"),
        (3_000, "enrolled again"),
        (4_000, "revoked"),
        (6_000, "enrolled"),
    ];
    assert_eq!(events, wanted);
    assert_eq!(audit[6].sensor.as_deref(), Some(first.sensor.as_str()));
    assert_eq!(audit[4].detail, "code whose hash begins 01010101");
    assert_eq!(database.audit(2).await?, audit[6..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_become_identifiers() -> Result<()> {
    let lab = Lab::new().await?;
    let database = lab.database().await?;
    let long = "x".repeat(100);
    let cases = [
        ("Town Hall", "town-hall-2"),
        ("  St. Mary's — School  ", "st-mary-s-school"),
        ("Größe 7", "gr-e-7"),
        (long.as_str(), &long[..48]),
    ];
    for (name, id) in cases {
        assert_eq!(database.add_member(name, &[], 1).await?.id.as_str(), id, "{name}");
    }
    assert!(database.add_member("—", &[], 1).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_learns_of_a_code_what_it_may_and_no_more() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    assert_eq!(running.ingest.redeem(HASH, KEY).await, Err(RedeemError::Unknown));
    let peer = uplink::Peer {
        member: uplink::MemberId::parse("town-hall")?,
        sensor: crate::lab::sensor(),
        certificate_sha256: [0; 32],
        public_key: KEY,
    };
    assert!(!running.ingest.admitted(&peer).await?);
    running.stop().await
}

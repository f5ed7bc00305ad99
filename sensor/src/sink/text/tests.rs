//! What each form makes of each kind of record, and how files turn.

use std::fs;

use expect_test::{Expect, expect};
use flow::{Books, EndReason, Handshake, Record, tcp_flag};
use tempfile::TempDir;

use super::super::records::{all, backscatter, folded, rest, tunnelled, web};
use super::super::{Files, Rotation, Sink, SinkError};
use super::csv::{Csv, HEADER};
use super::ecs::Ecs;
use super::native::Native;
use super::zeek::{COLUMNS, Zeek};
use super::{Format, TextSink};

/// 2026-05-28T20:26:40Z.
const NOW_MS: u64 = 1_780_000_000_000;

fn written(mut format: impl Format, records: &[Record]) -> String {
    let mut out = Vec::new();
    format.begin(NOW_MS, &mut out);
    format.write(records, &mut out);
    format.end(NOW_MS + 1_000, &mut out);
    String::from_utf8(out).expect("it is UTF-8")
}

fn check(format: impl Format, expected: &Expect) {
    expected.assert_eq(&written(format, &all()));
}

#[test]
fn native() {
    check(
        Native::new(),
        &expect![[r#"
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=","protocol":6,"initiator":"192.0.2.1","initiator_port":40000,"responder":"198.51.100.2","responder_port":443,"vlan_outer":10,"vlan_inner":20,"initiator_packets":5,"initiator_bytes":500,"initiator_tcp_flags":27,"initiator_ttl":64,"initiator_dscp":10,"initiator_first_flags":2,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":4,"responder_bytes":400,"responder_tcp_flags":27,"responder_ttl":64,"responder_dscp":10,"responder_first_flags":2,"responder_length_min":60,"responder_length_max":1514,"handshake":"established","handshake_rtt_us":23456,"interface":1,"role":"handshake","end_reason":"end_of_flow"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:kyPi0/wQVtWr/5xt65XE533xAnM=","protocol":17,"initiator":"192.0.2.1","responder":"198.51.100.2","initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_fragmented":true,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"first_packet","end_reason":"idle_timeout"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:Pnt6kNUETDhflqGZY9RhdG5rZNI=","protocol":17,"initiator":"2001:db8::1","initiator_port":5353,"responder":"2001:db8:0:1::2","responder_port":53,"mpls_label":1234,"tunnels":["gre","vxlan:5001"],"initiator_packets":1,"initiator_bytes":100,"initiator_ttl":64,"initiator_dscp":10,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":1,"responder_bytes":100,"responder_ttl":64,"responder_dscp":10,"responder_length_min":60,"responder_length_max":1514,"interface":2,"role":"first_packet","end_reason":"active_timeout"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:zFLKq9oekfjLhmre/zOf0XYYjVE=","protocol":1,"initiator":"192.0.2.1","initiator_port":8,"responder":"198.51.100.2","responder_port":0,"vlan_outer":10,"initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"first_packet","end_reason":"idle_timeout"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:uJ9SQ5bzjAGtbtJ9qNjZsUpfAv4=","protocol":58,"initiator":"2001:db8::1","initiator_port":1,"responder":"2001:db8:0:1::2","responder_port":4,"initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_fragmented":true,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"first_packet","end_reason":"idle_timeout"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=","protocol":6,"initiator":"192.0.2.1","initiator_port":40000,"responder":"198.51.100.2","responder_port":443,"initiator_packets":0,"initiator_bytes":0,"responder_packets":3,"responder_bytes":300,"responder_tcp_flags":18,"responder_ttl":64,"responder_dscp":10,"responder_first_flags":2,"responder_length_min":60,"responder_length_max":1514,"handshake":"syn_ack","interface":1,"role":"handshake","end_reason":"forced_end"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:E9qZTaeyZk5eBPJ6gV+gZ4DbpKA=","protocol":50,"initiator":"192.0.2.1","responder":"198.51.100.2","initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_fragmented":true,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"guess","end_reason":"idle_timeout"}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","protocol":6,"initiator":"203.0.0.0","responder":"198.51.100.2","responder_port":443,"initiator_packets":1000,"initiator_bytes":60000,"initiator_tcp_flags":2,"responder_packets":0,"responder_bytes":0,"role":"guess","end_reason":"lack_of_resources","folded":true}
            {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","initiator":"::","responder":"::","initiator_packets":1000,"initiator_bytes":60000,"responder_packets":0,"responder_bytes":0,"role":"guess","end_reason":"lack_of_resources","folded":true}
            {"start_time":null,"end_time":null,"community_id":"1:kyPi0/wQVtWr/5xt65XE533xAnM=","protocol":17,"initiator":"192.0.2.1","responder":"198.51.100.2","initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_fragmented":true,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"first_packet","end_reason":"idle_timeout"}
        "#]],
    );
}

#[test]
fn ecs() {
    let interfaces = ["span0".to_owned(), "of \"quotes\"".to_owned()];
    check(
        Ecs::new(&interfaces),
        &expect![[r#"
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection","end"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"end_of_flow","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"192.0.2.1","port":40000,"packets":5,"bytes":500},"destination":{"ip":"198.51.100.2","port":443,"packets":4,"bytes":400},"client":{"ip":"192.0.2.1","port":40000,"packets":5,"bytes":500},"server":{"ip":"198.51.100.2","port":443,"packets":4,"bytes":400},"related":{"ip":["192.0.2.1","198.51.100.2"]},"network":{"type":"ipv4","transport":"tcp","iana_number":"6","community_id":"1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=","packets":9,"bytes":900,"vlan":{"id":"10"},"inner":{"vlan":{"id":"20"}}},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0","ingress":{"interface":{"id":"1","name":"span0"}}},"spanwatch":{"role":"handshake","handshake":"established","handshake_rtt_us":23456,"initiator":{"tcp_flags":27,"first_flags":2,"ttl":64,"dscp":10,"length_min":60,"length_max":1514},"responder":{"tcp_flags":27,"first_flags":2,"ttl":64,"dscp":10,"length_min":60,"length_max":1514}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection","end"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"idle_timeout","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"192.0.2.1","packets":5,"bytes":500},"destination":{"ip":"198.51.100.2","packets":0,"bytes":0},"client":{"ip":"192.0.2.1","packets":5,"bytes":500},"server":{"ip":"198.51.100.2","packets":0,"bytes":0},"related":{"ip":["192.0.2.1","198.51.100.2"]},"network":{"type":"ipv4","transport":"udp","iana_number":"17","community_id":"1:kyPi0/wQVtWr/5xt65XE533xAnM=","packets":5,"bytes":500},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"first_packet","initiator":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514,"fragmented":true}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"active_timeout","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"2001:db8::1","port":5353,"packets":1,"bytes":100},"destination":{"ip":"2001:db8:0:1::2","port":53,"packets":1,"bytes":100},"client":{"ip":"2001:db8::1","port":5353,"packets":1,"bytes":100},"server":{"ip":"2001:db8:0:1::2","port":53,"packets":1,"bytes":100},"related":{"ip":["2001:db8::1","2001:db8:0:1::2"]},"network":{"type":"ipv6","transport":"udp","iana_number":"17","community_id":"1:Pnt6kNUETDhflqGZY9RhdG5rZNI=","packets":2,"bytes":200},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0","ingress":{"interface":{"id":"2","name":"of \"quotes\""}}},"spanwatch":{"role":"first_packet","mpls_label":1234,"tunnels":["gre","vxlan:5001"],"initiator":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514},"responder":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection","end"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"idle_timeout","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"192.0.2.1","packets":5,"bytes":500},"destination":{"ip":"198.51.100.2","packets":0,"bytes":0},"client":{"ip":"192.0.2.1","packets":5,"bytes":500},"server":{"ip":"198.51.100.2","packets":0,"bytes":0},"related":{"ip":["192.0.2.1","198.51.100.2"]},"network":{"type":"ipv4","transport":"icmp","iana_number":"1","community_id":"1:zFLKq9oekfjLhmre/zOf0XYYjVE=","packets":5,"bytes":500,"vlan":{"id":"10"}},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"first_packet","icmp":{"type":8,"answer_type":0},"initiator":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection","end"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"idle_timeout","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"2001:db8::1","packets":5,"bytes":500},"destination":{"ip":"2001:db8:0:1::2","packets":0,"bytes":0},"client":{"ip":"2001:db8::1","packets":5,"bytes":500},"server":{"ip":"2001:db8:0:1::2","packets":0,"bytes":0},"related":{"ip":["2001:db8::1","2001:db8:0:1::2"]},"network":{"type":"ipv6","transport":"ipv6-icmp","iana_number":"58","community_id":"1:uJ9SQ5bzjAGtbtJ9qNjZsUpfAv4=","packets":5,"bytes":500},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"first_packet","icmp":{"type":1,"code":4},"initiator":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514,"fragmented":true}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"forced_end","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"192.0.2.1","port":40000,"packets":0,"bytes":0},"destination":{"ip":"198.51.100.2","port":443,"packets":3,"bytes":300},"client":{"ip":"192.0.2.1","port":40000,"packets":0,"bytes":0},"server":{"ip":"198.51.100.2","port":443,"packets":3,"bytes":300},"related":{"ip":["192.0.2.1","198.51.100.2"]},"network":{"type":"ipv4","transport":"tcp","iana_number":"6","community_id":"1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=","packets":3,"bytes":300},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0","ingress":{"interface":{"id":"1","name":"span0"}}},"spanwatch":{"role":"handshake","handshake":"syn_ack","responder":{"tcp_flags":18,"first_flags":2,"ttl":64,"dscp":10,"length_min":60,"length_max":1514}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection","end"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"idle_timeout","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"ip":"192.0.2.1","packets":5,"bytes":500},"destination":{"ip":"198.51.100.2","packets":0,"bytes":0},"related":{"ip":["192.0.2.1","198.51.100.2"]},"network":{"type":"ipv4","transport":"esp","iana_number":"50","community_id":"1:E9qZTaeyZk5eBPJ6gV+gZ4DbpKA=","packets":5,"bytes":500},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"guess","initiator":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514,"fragmented":true}}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"lack_of_resources","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"address":"203.0.0.0/8","packets":1000,"bytes":60000},"destination":{"ip":"198.51.100.2","port":443,"packets":0,"bytes":0},"network":{"type":"ipv4","transport":"tcp","iana_number":"6","packets":1000,"bytes":60000},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"guess","initiator":{"tcp_flags":2},"folded":true}}
            {"@timestamp":"2026-05-28T20:26:41.000Z","ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"lack_of_resources","start":"2026-05-28T20:26:40.007Z","end":"2026-05-28T20:26:41.000Z","duration":993000000},"source":{"packets":1000,"bytes":60000},"destination":{"packets":0,"bytes":0},"network":{"packets":1000,"bytes":60000},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"guess","folded":true}}
            {"ecs":{"version":"8.17.0"},"event":{"kind":"event","category":["network"],"type":["connection","end"],"module":"spanwatch","dataset":"spanwatch.flow","reason":"idle_timeout"},"source":{"ip":"192.0.2.1","packets":5,"bytes":500},"destination":{"ip":"198.51.100.2","packets":0,"bytes":0},"client":{"ip":"192.0.2.1","packets":5,"bytes":500},"server":{"ip":"198.51.100.2","packets":0,"bytes":0},"related":{"ip":["192.0.2.1","198.51.100.2"]},"network":{"type":"ipv4","transport":"udp","iana_number":"17","community_id":"1:kyPi0/wQVtWr/5xt65XE533xAnM=","packets":5,"bytes":500},"observer":{"vendor":"Spanwatch","product":"spanwatch-sensor","type":"sensor","version":"0.1.0"},"spanwatch":{"role":"first_packet","initiator":{"ttl":64,"dscp":10,"length_min":60,"length_max":1514,"fragmented":true}}}
        "#]],
    );
}

#[test]
fn zeek() {
    check(
        Zeek::new(),
        &expect![[r"
        #separator \x09
        #set_separator	,
        #empty_field	(empty)
        #unset_field	-
        #path	conn
        #open	2026-05-28-20-26-40
        #fields	ts	uid	id.orig_h	id.orig_p	id.resp_h	id.resp_p	proto	service	duration	orig_bytes	resp_bytes	conn_state	local_orig	local_resp	missed_bytes	history	orig_pkts	orig_ip_bytes	resp_pkts	resp_ip_bytes	tunnel_parents	ip_proto	vlan	inner_vlan	community_id
        #types	time	string	addr	port	addr	port	enum	string	interval	count	count	string	bool	bool	count	string	count	count	count	count	set[string]	count	int	int	string
        1780000000.007000	CTgrsyAHXNC5WnMZ40	192.0.2.1	40000	198.51.100.2	443	tcp	-	0.993000	-	-	SF	-	-	-	-	5	-	4	-	(empty)	6	10	20	1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=
        1780000000.007000	Ca3KEdAuEdyGeXJok0	192.0.2.1	-	198.51.100.2	-	udp	-	0.993000	-	-	S0	-	-	-	-	5	-	0	-	(empty)	17	-	-	1:kyPi0/wQVtWr/5xt65XE533xAnM=
        1780000000.007000	CJz8SMFR7MHIVcJoO1	2001:db8::1	5353	2001:db8:0:1::2	53	udp	-	0.993000	-	-	SF	-	-	-	-	1	-	1	-	-	17	-	-	1:Pnt6kNUETDhflqGZY9RhdG5rZNI=
        1780000000.007000	C7pq29NoE6LhGyCKf0	192.0.2.1	8	198.51.100.2	0	icmp	-	0.993000	-	-	OTH	-	-	-	-	5	-	0	-	(empty)	1	10	-	1:zFLKq9oekfjLhmre/zOf0XYYjVE=
        1780000000.007000	COo0guENkhHZY82pK1	2001:db8::1	1	2001:db8:0:1::2	4	icmp	-	0.993000	-	-	OTH	-	-	-	-	5	-	0	-	(empty)	58	-	-	1:uJ9SQ5bzjAGtbtJ9qNjZsUpfAv4=
        1780000000.007000	CQEAsIC7c4AC454eg0	192.0.2.1	40000	198.51.100.2	443	tcp	-	0.993000	-	-	OTH	-	-	-	-	0	-	3	-	(empty)	6	-	-	1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=
        1780000000.007000	CtTRtnVf4KSsyciDX1	192.0.2.1	-	198.51.100.2	-	unknown_transport	-	0.993000	-	-	OTH	-	-	-	-	5	-	0	-	(empty)	50	-	-	1:E9qZTaeyZk5eBPJ6gV+gZ4DbpKA=
        1780000000.007000	CRzSAqZdTX8tSSGEq0	-	-	198.51.100.2	443	tcp	-	0.993000	-	-	-	-	-	-	-	1000	-	0	-	(empty)	6	-	-	-
        1780000000.007000	CWLlXa8xeCgGlJVFi0	-	-	-	-	unknown_transport	-	0.993000	-	-	-	-	-	-	-	1000	-	0	-	(empty)	-	-	-	-
        -	Cfhi9zaT6fBv7D28K0	192.0.2.1	-	198.51.100.2	-	udp	-	-	-	-	S0	-	-	-	-	5	-	0	-	(empty)	17	-	-	1:kyPi0/wQVtWr/5xt65XE533xAnM=
        #close	2026-05-28-20-26-41
    "]],
    );
}

#[test]
fn csv() {
    check(
        Csv::new(),
        &expect![[r#"
            start_time,end_time,community_id,ip_version,protocol,initiator,initiator_port,responder,responder_port,vlan_outer,vlan_inner,mpls_label,tunnels,initiator_packets,initiator_bytes,initiator_tcp_flags,initiator_ttl,initiator_dscp,initiator_first_flags,initiator_fragmented,initiator_length_min,initiator_length_max,responder_packets,responder_bytes,responder_tcp_flags,responder_ttl,responder_dscp,responder_first_flags,responder_fragmented,responder_length_min,responder_length_max,handshake,handshake_rtt_us,interface,role,end_reason,folded,initiator_prefix_bits
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=,4,6,192.0.2.1,40000,198.51.100.2,443,10,20,,,5,500,27,64,10,2,false,60,1514,4,400,27,64,10,2,false,60,1514,established,23456,1,handshake,end_of_flow,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:kyPi0/wQVtWr/5xt65XE533xAnM=,4,17,192.0.2.1,,198.51.100.2,,,,,,5,500,,64,10,,true,60,1514,0,0,,,,,,,,,,,first_packet,idle_timeout,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:Pnt6kNUETDhflqGZY9RhdG5rZNI=,6,17,2001:db8::1,5353,2001:db8:0:1::2,53,,,1234,"gre,vxlan:5001",1,100,,64,10,,false,60,1514,1,100,,64,10,,false,60,1514,,,2,first_packet,active_timeout,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:zFLKq9oekfjLhmre/zOf0XYYjVE=,4,1,192.0.2.1,8,198.51.100.2,0,10,,,,5,500,,64,10,,false,60,1514,0,0,,,,,,,,,,,first_packet,idle_timeout,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:uJ9SQ5bzjAGtbtJ9qNjZsUpfAv4=,6,58,2001:db8::1,1,2001:db8:0:1::2,4,,,,,5,500,,64,10,,true,60,1514,0,0,,,,,,,,,,,first_packet,idle_timeout,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=,4,6,192.0.2.1,40000,198.51.100.2,443,,,,,0,0,,,,,,,,3,300,18,64,10,2,false,60,1514,syn_ack,,1,handshake,forced_end,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,1:E9qZTaeyZk5eBPJ6gV+gZ4DbpKA=,4,50,192.0.2.1,,198.51.100.2,,,,,,5,500,,64,10,,true,60,1514,0,0,,,,,,,,,,,guess,idle_timeout,false,
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,,4,6,203.0.0.0,,198.51.100.2,443,,,,,1000,60000,2,,,,,,,0,0,,,,,,,,,,,guess,lack_of_resources,true,8
            2026-05-28T20:26:40.007Z,2026-05-28T20:26:41.000Z,,,,::,,::,,,,,,1000,60000,,,,,,,,0,0,,,,,,,,,,,guess,lack_of_resources,true,0
            ,,1:kyPi0/wQVtWr/5xt65XE533xAnM=,4,17,192.0.2.1,,198.51.100.2,,,,,,5,500,,64,10,,true,60,1514,0,0,,,,,,,,,,,first_packet,idle_timeout,false,
        "#]],
    );
}

#[test]
fn every_json_line_is_json_and_nothing_unknown_is_null() {
    for text in [written(Native::new(), &all()), written(Ecs::new(&[]), &all())] {
        assert_eq!(text.lines().count(), all().len());
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
            assert!(value.is_object(), "{line}");
        }
    }
    let text = written(Native::new(), &[rest()]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    for absent in ["protocol", "community_id", "initiator_port", "responder_port", "handshake"] {
        assert!(value.get(absent).is_none(), "{absent} of nothing is not known: {text}");
    }
}

#[test]
fn the_columns_of_csv_are_read_back_by_the_library() {
    let text = written(Csv::new(), &all());
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> =
        reader.headers().expect("there is one").iter().map(str::to_owned).collect();
    assert_eq!(header, HEADER);
    let rows: Vec<::csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().expect("every row has every column");
    assert_eq!(rows.len(), all().len());
    let at = |name: &str| header.iter().position(|column| column == name).expect("a column");
    let tunnelled = &rows[2];
    assert_eq!(&tunnelled[at("tunnels")], "gre,vxlan:5001");
    assert_eq!(&tunnelled[at("vlan_outer")], "");
    assert_eq!(&rows[7][at("initiator_prefix_bits")], "8");
}

/// As `zeek-cut` does: by the names in the header.
#[test]
fn zeek_is_read_back_by_the_names_in_its_header() {
    let text = written(Zeek::new(), &all());
    let mut names = Vec::new();
    let mut types = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        let values = || line.split('\t').skip(1).map(str::to_owned).collect::<Vec<_>>();
        if line.starts_with("#fields\t") {
            names = values();
        } else if line.starts_with("#types\t") {
            types = values();
        } else if !line.starts_with('#') {
            rows.push(line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        }
    }
    assert!(text.starts_with("#separator \\x09\n"), "zeek-cut reads it first");
    assert!(text.ends_with("#close\t2026-05-28-20-26-41\n"), "{text}");
    assert_eq!((names.len(), types.len()), (COLUMNS.len(), COLUMNS.len()));
    let at = |name: &str| names.iter().position(|column| column == name).expect("a column");
    for row in &rows {
        assert_eq!(row.len(), names.len());
        for (value, kind) in row.iter().zip(&types).filter(|(value, _)| *value != "-") {
            let fits = match kind.as_str() {
                "time" | "interval" => value.parse::<f64>().is_ok(),
                "addr" => value.parse::<std::net::IpAddr>().is_ok(),
                "port" => value.parse::<u16>().is_ok(),
                "count" | "int" => value.parse::<u64>().is_ok(),
                "set[string]" => value == "(empty)",
                _ => !value.is_empty(),
            };
            assert!(fits, "`{value}` is no {kind}");
        }
    }
    let first = &rows[0];
    assert_eq!(
        (first[at("id.orig_p")].as_str(), first[at("conn_state")].as_str()),
        ("40000", "SF")
    );
    let mut identifiers: Vec<&str> = rows.iter().map(|row| row[at("uid")].as_str()).collect();
    identifiers.sort_unstable();
    identifiers.dedup();
    assert_eq!(identifiers.len(), rows.len(), "each record has its own");
    assert!(identifiers.iter().all(|id| id.len() == 18 && id.starts_with('C')));
}

#[test]
fn the_state_of_a_connection_is_what_flags_decide() {
    const FIN: u8 = tcp_flag::FIN;
    const RST: u8 = tcp_flag::RST;
    let state = |handshake, ours: u8, theirs: u8, seen: bool| {
        let mut record = Record { handshake, ..web() };
        record.from_initiator.tcp_flags = ours;
        record.from_responder.tcp_flags = theirs;
        if !seen {
            record.from_initiator = flow::Direction::default();
        }
        let text = written(Zeek::new(), &[record]);
        let line = text.lines().find(|line| !line.starts_with('#')).expect("there is one");
        line.split('\t').nth(11).expect("a column").to_owned()
    };
    for (handshake, ours, theirs, seen, expected) in [
        (Handshake::Syn, 2, 0, true, "S0"),
        (Handshake::Syn, 2 | FIN, 0, true, "SH"),
        (Handshake::Syn, 2 | RST, 0, true, "RSTOS0"),
        (Handshake::Rejected, 2, RST, true, "REJ"),
        (Handshake::SynAck, 2, 18, true, "S1"),
        (Handshake::SynAck, 0, 18, false, "OTH"),
        (Handshake::SynAck, 0, 0x12 | FIN, false, "SHR"),
        (Handshake::SynAck, 0, 0x12 | RST, false, "RSTRH"),
        (Handshake::Established, 2, 18, true, "S1"),
        (Handshake::Established, FIN, 18, true, "S2"),
        (Handshake::Established, 2, FIN, true, "S3"),
        (Handshake::Established, FIN, FIN, true, "SF"),
        (Handshake::Established, RST, FIN, true, "RSTO"),
        (Handshake::Established, FIN, RST, true, "RSTR"),
        (Handshake::Established, RST, RST, true, "-"),
        (Handshake::OneWay, 16, 0, true, "OTH"),
        (Handshake::None, 16, 16, true, "OTH"),
    ] {
        assert_eq!(state(handshake, ours, theirs, seen), expected, "{handshake:?} {ours} {theirs}");
    }
}

#[test]
fn parts_of_a_flow_have_different_identifiers_and_the_same_record_the_same() {
    let id = |record: Record| {
        let text = written(Zeek::new(), &[record]);
        let line = text.lines().find(|line| !line.starts_with('#')).expect("there is one");
        line.split('\t').nth(1).expect("a column").to_owned()
    };
    let later = Record { start_ms: NOW_MS + 60_000, end_reason: EndReason::ActiveTimeout, ..web() };
    assert_eq!(id(web()), id(web()));
    assert_ne!(id(web()), id(later));
    assert_ne!(id(web()), id(Record { outer: tunnelled().outer, ..web() }));
}

fn sink(folder: &TempDir, rotation: Rotation) -> TextSink {
    let path = folder.path().join("conn.log");
    TextSink::zeek(Files::open(Some(&path), rotation, false, NOW_MS).expect("room"))
}

fn read(folder: &TempDir) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = folder
        .path()
        .read_dir()
        .expect("the folder is there")
        .map(|entry| {
            let path = entry.expect("it can be listed").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_default(), fs::read_to_string(&path).expect("it is text"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_file_of_a_series_has_a_head_and_an_end_and_no_line_is_lost() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation = Rotation { file_bytes_max: Some(20_000), ..Rotation::default() };
    let mut sink = sink(&folder, rotation);
    let records = vec![web(); 500];
    for step in 0..3 {
        sink.handle_records(&records, &Books::default(), NOW_MS + step).expect("room");
    }
    sink.finish(&Books::default(), NOW_MS + 3).expect("room");
    let files = read(&folder);
    assert!(files.len() > 5, "{}", files.len());
    let mut lines = 0;
    for (name, text) in &files {
        assert!(!name.contains("partial"), "{name} is complete");
        assert!(text.starts_with("#separator") && text.contains("\n#close\t"), "{name}");
        assert!(text.len() < 40_000, "{name}: {} bytes", text.len());
        lines += text.lines().filter(|line| !line.starts_with('#')).count();
    }
    assert_eq!(lines, 1_500);
}

#[test]
fn time_alone_ends_a_file_that_has_something_in_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation = Rotation { file_period_ms: Some(1_000), ..Rotation::default() };
    let mut sink = sink(&folder, rotation);
    let books = Books::default();
    sink.handle_records(&[web()], &books, NOW_MS).expect("room");
    sink.advance(&books, NOW_MS + 999).expect("room");
    assert_eq!(read(&folder).len(), 1);
    sink.advance(&books, NOW_MS + 1_000).expect("room");
    assert_eq!(read(&folder).len(), 2);
    sink.finish(&books, NOW_MS + 1_001).expect("room");
    let with_lines = read(&folder).iter().filter(|(_, text)| text.contains("\ttcp\t")).count();
    assert_eq!(with_lines, 1);
}

#[test]
fn what_is_held_when_the_disk_is_full_is_counted() {
    let path = std::path::Path::new("/dev/full");
    let files = Files::open(Some(path), Rotation::default(), false, NOW_MS).expect("it is there");
    let mut sink = TextSink::native(files);
    let books = Books::default();
    sink.handle_records(&[web(), folded(), backscatter()], &books, NOW_MS).expect("it is held");
    let error = sink.advance(&books, NOW_MS).expect_err("nothing fits");
    assert_eq!(error.to_string(), "cannot write /dev/full");
    assert!(matches!(error, SinkError::Write { .. }));
    assert_eq!(sink.totals().records_unwritten, 3);
}

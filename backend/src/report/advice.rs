//! The fixed texts: what each kind of finding means and what to do. Reviewed as text, never
//! assembled from data.

use detect::Kind;

/// What one kind of finding means to a member.
pub(super) struct Advice {
    /// The kind's name for people.
    pub(super) title: &'static str,
    /// The same for more than one.
    pub(super) titles: &'static str,
    /// What it is, for somebody who never heard of it.
    pub(super) meaning: &'static str,
    /// What to do, first things first.
    pub(super) steps: &'static [&'static str],
    /// The first step in one line, for the front page.
    pub(super) first: &'static str,
}

/// Whom to call, whatever was found.
pub(super) const CONTACTS: [(&str, &str); 3] = [
    (
        "Your force’s Cyber Protect officer",
        "For help with this report and with any step in it. The advice is free and nobody will judge you.",
    ),
    (
        "Report Fraud",
        "If money or data was taken, if you were threatened, or if an attack stops you from working: \
         it is a crime, and reporting it gets it recorded.",
    ),
    (
        "National Cyber Security Centre (NCSC)",
        "For guidance on each of these subjects, and to report an incident that affects others besides you.",
    ),
];

/// What was written into each record that left the site.
pub(super) const FIELDS_SENT: &str = "start and end time, the two addresses (of your own clients: pseudonyms, unless you have switched that off) and ports, protocol, VLAN tags, and \
     for each direction the number of packets and bytes, shortest and longest packet, TCP flags and time to live; \
     how far the connection got, who opened it and how certain that is, and why the record ended";

/// What this kind of report cannot know.
pub(super) const LIMITS: [&str; 6] = [
    "The sensor reads packet headers only. It cannot see what was said, so it cannot tell whether a guessed \
     password worked or what a program sent.",
    "It sees the traffic that your network mirrors to it. Traffic that stays elsewhere – at home, in the cloud, \
     inside one switch – is not in this report.",
    "Very slow scans, with a few attempts a day, stay below what a single site can judge.",
    "Regular calls to the outside are often harmless: monitoring, updates, telephones. The report says what was \
     seen; what it means is for somebody who knows the network.",
    "Source addresses marked as “may be forged” never completed a connection. They may belong to uninvolved \
     people: do not act against them.",
    "A quiet report means that none of the rules listed in the findings was met in the observed hours. It does \
     not mean that nothing happened.",
];

/// The text for a kind.
pub(super) const fn advice(kind: Kind) -> &'static Advice {
    match kind {
        Kind::VerticalScan => &VERTICAL_SCAN,
        Kind::HorizontalScan => &HORIZONTAL_SCAN,
        Kind::SynFlood => &SYN_FLOOD,
        Kind::PasswordGuessing => &PASSWORD_GUESSING,
        Kind::Reflection => &REFLECTION,
        Kind::Beacon => &BEACON,
        Kind::Backscatter => &BACKSCATTER,
    }
}

const VERTICAL_SCAN: Advice = Advice {
    title: "Port scan",
    titles: "port scans",
    meaning: "One address tried many ports of one of your hosts, to learn which services it offers. From outside \
              this happens to every address on the Internet. From inside it means that one of your own machines \
              is looking around, which it should not do unless you asked it to.",
    steps: &[
        "If the scan came from inside: find out who owns the machine. If nobody ran a scan on purpose, disconnect \
         it from the network and leave it switched on, so that evidence is not lost.",
        "Compare “Ports tried” with the services that you mean to offer. Close at the firewall every port \
         that answered and that you did not expect.",
        "Blocking single scanning addresses helps little: the next scan comes from another one.",
    ],
    first: "Check the machine that scanned from inside your network, and disconnect it if nobody can explain it.",
};

const HORIZONTAL_SCAN: Advice = Advice {
    title: "Network sweep",
    titles: "network sweeps",
    meaning: "One address tried the same port on many hosts, to find those that answer. From outside this is the \
              Internet’s background noise. From inside it is how an infection spreads.",
    steps: &[
        "If the sweep came from inside: treat the machine as infected. Disconnect it, leave it switched on, and \
         call for help.",
        "Offer the port in question only where it is needed, and only to addresses that need it.",
        "Bring the software behind that port up to date: sweeps often follow the news of a new weakness.",
    ],
    first: "Treat the machine that swept the network from inside as infected: disconnect it and call for help.",
};

const SYN_FLOOD: Advice = Advice {
    title: "SYN flood",
    titles: "SYN floods",
    meaning: "A service was given far more connection openings than it completed. The purpose is to make it \
              unreachable for everybody else. The source addresses are usually forged.",
    steps: &[
        "Ask whether the service was slow or unreachable at that time; note when and for whom.",
        "Tell your Internet provider the target and the times. They can filter before the traffic reaches you.",
        "Check that SYN cookies are enabled on the server or load balancer.",
        "Do not block the source addresses: most of them never sent anything.",
        "If somebody demands money, do not pay, and report it.",
    ],
    first: "Give your Internet provider the target and times of the SYN flood, and ask for filtering.",
};

const PASSWORD_GUESSING: Advice = Advice {
    title: "Password guessing",
    titles: "cases of password guessing",
    meaning: "One address logged in, or tried to, again and again with short sessions that look alike. This is \
              how stolen and common passwords are tried.",
    steps: &[
        "Look at the login records of the target for these times. If one attempt succeeded that nobody can \
         explain, treat the host as taken over: disconnect it and call for help.",
        "Take the login service off the Internet. Offer it through a VPN, or to known addresses only.",
        "Switch on multi-factor authentication, and lock or slow down after failed attempts.",
        "Change passwords that are used in more than one place.",
    ],
    first: "Check the login records of the targets of password guessing for a login that nobody can explain.",
};

const REFLECTION: Advice = Advice {
    title: "Reflection attack",
    titles: "reflection attacks",
    meaning: "Many servers on the Internet sent answers that your host never asked for. An attacker asked them in \
              your name, to fill your line.",
    steps: &[
        "Tell your Internet provider the target, the times and the ports named in the finding. Only they can stop \
         it before your line.",
        "Ask them which protection against denial of service your contract includes.",
        "Drop UDP from ports that you never use, as far up the line as you can.",
        "The servers that answered are misused, not guilty: do not attack them in return.",
    ],
    first: "Give your Internet provider the target, times and ports of the reflection attack.",
};

const BEACON: Advice = Advice {
    title: "Regular calls to the outside",
    titles: "regular callers to the outside",
    meaning: "A host inside calls one place outside at steady times with nearly equal sizes. Remote-controlled \
              malware does this. So do monitoring, update checks and telephones.",
    steps: &[
        "Find out which program on that host makes the calls, and whether somebody can explain them.",
        "If nobody can: disconnect the host from the network, leave it switched on, and call for help.",
        "If it is harmless, write down what it is, so that the next report takes you a minute less.",
    ],
    first: "Find out which program makes the regular calls to the outside, and isolate the host if nobody knows.",
};

const BACKSCATTER: Advice = Advice {
    title: "Backscatter",
    titles: "cases of backscatter",
    meaning: "A host elsewhere is under attack, and the attacker forged addresses of yours. Its answers arrive \
              here. Nothing of yours is attacked or involved.",
    steps: &["Nothing needs to be done."],
    first: "Nothing needs to be done about backscatter.",
};

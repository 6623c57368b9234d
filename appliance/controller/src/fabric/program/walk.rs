//! A frame walked through the programs of all switches: the rules held against their purpose.

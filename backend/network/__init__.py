"""Networks: bridges, addresses, published ports, the firewall table, and names."""

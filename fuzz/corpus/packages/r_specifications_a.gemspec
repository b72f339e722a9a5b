s.name = "a".freeze
s.version = "1"
s.licenses = ["MIT"]

-- Which of some commands its user may not run. Runs none of them, reads and writes nothing.
--
-- KEYS     one of the shard that is asked, which is not touched
-- ARGV[1]  msgpack: commands with arguments, such as keys and channels of the kind they will have
-- ARGV[#]  the nonce
-- Reply    the nonce, and msgpack: the places of those that are not permitted

local lacking = {}
for i, command in ipairs(cmsgpack.unpack(ARGV[1])) do
  if not redis.acl_check_cmd(unpack(command)) then lacking[#lacking + 1] = i - 1 end
end
return { ARGV[#ARGV], cmsgpack.pack(lacking) }

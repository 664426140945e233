-- Extends leases, gives them back, or takes them back from a process that ends. Harmless twice.
--
-- KEYS     turn, then what the leases name: queues (zset) and fences (hash)
-- ARGV[1]  msgpack: {verb, stamp, channel, news, {fences, field, queue, id, turn, fence, due}...}
-- ARGV[#]  the nonce
-- Reply    the nonce, and msgpack: the places of those that are lost
--
-- A lease is held while its fence is the newest. One that is taken back gets a new fence: it is worth
-- nothing, whoever shows it.

local ask, nonce = cmsgpack.unpack(ARGV[1]), ARGV[#ARGV]
local verb, stamp, channel, news, leases = ask[1], ask[2], ask[3], ask[4], ask[5]
local time = redis.call('TIME')
if stamp < time[1] * 1000 + math.floor(time[2] / 1000) - 2000 then
  return redis.error_reply('LATE nobody waits for this any more')
end
local types = { [KEYS[1]] = 'zset' }
for _, l in ipairs(leases) do
  types[KEYS[l[1]]], types[KEYS[l[3]]] = 'hash', 'zset'
end
for _, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= types[key] then return redis.error_reply('MISTYPED a key is a ' .. is) end
end

local lost = {}
for i, l in ipairs(leases) do
  local fences, queue, due = KEYS[l[1]], KEYS[l[3]], l[7]
  if tonumber(redis.call('HGET', fences, l[2]) or 0) ~= l[6] then
    lost[#lost + 1] = i
  elseif verb == 'renew' then
    redis.call('ZADD', queue, 'XX', 'GT', due, l[4])
  else
    if verb == 'reclaim' then
      redis.call('HINCRBY', fences, l[2], 1)
      redis.call('ZADD', queue, 'XX', 'LT', due, l[4])
    else
      redis.call('ZADD', queue, 'XX', due, l[4])
    end
    local at = redis.call('ZSCORE', queue, l[4])
    if at then redis.call('ZADD', KEYS[1], 'LT', at, l[5]) end
  end
end
if news ~= '' then redis.call('PUBLISH', channel, news) end
return { nonce, cmsgpack.pack(lost) }
